"""Processes are ended, killed, and killed at every point of `tests.kill.points`, under load: nothing is lost.

It all happens once, in `killed`, both databases side by side, because leases (15 s) can only be waited out; the tests
then look at what came of it. `-k` with a point's or process's name plays that one alone. Points on the way to
Syncaroo's tokens are `test_grant`'s, other ends than SIGKILL `test_surprises`'.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from ops.stack import WORKERS
from tests.acceptance.leads import (
    DATABASES,
    SECOND_CONNECTION,
    apart,
    at_work,
    cells,
    changing,
    lead_to,
    onboarded,
    places,
    telling,
    went_on,
)
from tests.acceptance.world import Place, World, same_port, selected
from tests.fixtures.broker import Vhosts
from tests.kill.entry import command, marker, orders
from tests.kill.points import OF_THE_FLOW, POINTS, Point

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

PROCESSES = (*WORKERS, "ingress")
DEATH_SECONDS = 90.0
"""A deadline for a busy machine; two gateways are played side by side."""


@dataclass
class Killed:
    """What came of it: `codes` by process and signal or by point, whether the `markers` were there, what `failed`."""

    codes: dict[str, int] = field(default_factory=dict)
    markers: dict[str, bool] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    walked: str = ""
    """The list in whose walk a process died."""

    async def end(self, made: World, role: str) -> None:
        """SIGTERM and start again; SIGKILL."""
        [name] = made.stack.names(role)
        self.codes[f"{role} TERM"] = await made.stack.terminate(name)
        await made.stack.restart(name)
        await at_work(made, name, lives=2)
        self.codes[f"{role} KILL"] = await made.stack.kill(name)

    async def die_at(self, made: World, point: Point) -> None:
        """The role runs through the entry point until it has died there."""
        stack = made.stack
        for name in stack.names(point.role):
            await stack.terminate(name)
        settings = {**orders("kill", [point.name]), **same_port(made)}
        [name] = await stack.start(point.role, command=command(point.role), settings=settings)
        leading = asyncio.create_task(lead_to(made, point.name))
        try:
            self.codes[point.name] = await stack.wait(name, DEATH_SECONDS)
        finally:
            told = await leading
            self.markers[point.name] = marker(stack.directory, "kill", point.name).exists()
        if point.name == "fetch.walk_kept":
            self.walked = told


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def killed(
    request: pytest.FixtureRequest, directory: Path, vhosts: Vhosts, urls: Mapping[str, str]
) -> dict[str, Killed]:
    """By database; everything that the selected tests want killed, has been."""
    wanted = {database: set[str]() for database in DATABASES}
    for cell in selected(request, "cell"):
        database, _, point = cell.split()
        wanted[database].add(point)
    wanted["sqlite"] |= selected(request, "process")
    runs = {database: Killed() for database in DATABASES}
    async with places(directory, vhosts, urls) as found:
        await asyncio.gather(
            *(_all_stages(runs[database], found[database], names) for database, names in wanted.items() if names)
        )
    return runs


# --- the plays


async def _all_stages(run: Killed, place: Place, wanted: set[str]) -> None:
    """The workers while everything changes; then the ingress, whose callers are left without an answer."""
    with apart(run.failed, *wanted):
        async with onboarded(place) as made:
            async with changing(made):
                await asyncio.gather(*(_lane(run, made, role, wanted) for role in WORKERS))
            if run.walked:
                await made.ledger(40)
                if not await went_on(made, run.walked):
                    run.failed.setdefault("fetch.walk_kept", "the walk began again")
            async with telling(made):
                await _lane(run, made, "ingress", wanted)
                if "provider.code_redeemed" in wanted:
                    await made.connect(SECOND_CONNECTION, has_listings=False)
            await made.ledger(40)


async def _lane(run: Killed, made: World, role: str, wanted: set[str]) -> None:
    """A process of this role is ended in good order, killed, and dies at point after point; then one lives."""
    if role in wanted:
        await run.end(made, role)
    for point in POINTS.values():
        if point.role == role and point.name in wanted:
            with apart(run.failed, point.name):
                await run.die_at(made, point)
    if not made.stack.names(role):
        [name] = await made.stack.start(role, settings=same_port(made))
        await at_work(made, name, lives=1)


# --- what came of it


@pytest.mark.parametrize("process", PROCESSES)
async def test_a_process_ends_in_good_order_or_by_kill_and_nothing_is_lost(
    killed: dict[str, Killed], process: str
) -> None:
    """T-TERM."""
    run = killed["sqlite"]
    assert process not in run.failed, run.failed[process]
    assert run.codes[f"{process} TERM"] == 0
    assert run.codes[f"{process} KILL"] == -signal.SIGKILL


@pytest.mark.parametrize("cell", cells(["kill"], OF_THE_FLOW))
async def test_a_process_dies_at_a_point_and_nothing_is_lost(killed: dict[str, Killed], cell: str) -> None:
    """T-KILL-ING, T-KILL-FETCH, T-KILL-REC, T-KILL-OUT, T-KILL-OP (`provider.…`): every point is reached, and the sum
    is right afterwards."""
    database, _, point = cell.split()
    run = killed[database]
    assert point not in run.failed, run.failed[point]
    assert run.markers[point], "the point was reached"
    assert run.codes[point] == -signal.SIGKILL
