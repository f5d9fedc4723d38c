"""Processes stand still, and meet errors that nobody expects, at every point of `tests.kill.points`, under load: they
live on, and nothing is lost.

In each mode one process of a role plays all its points, as it gets to them. It all happens once, in `played`, both
databases side by side; the tests then look at what came of it. `-k` with a point's name plays that one alone. Points on
the way to Syncaroo's tokens are `test_grant`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped, unused-ignore]  # it ships no types
import pytest
import pytest_asyncio
from sqlalchemy import select

from common.clock import monotonic_seconds
from common.codec import loads
from common.errors import GatewayError
from common.store.engine import Store
from ops.stack import WORKERS
from schemas.tables import TargetRow, table_of
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
)
from tests.acceptance.world import Place, World, same_port, selected
from tests.fixtures.broker import Vhosts
from tests.kill.entry import WENT_ON, Ordered, command, marker, orders
from tests.kill.points import OF_THE_FLOW, POINTS
from tests.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

_target = table_of(TargetRow)

MODES = ("stop", "raise")
SECONDS = 30.0
"""A deadline, with patience, for a busy machine; two gateways are played side by side."""
STANDS = 0.3
"""Seconds that a process stands still, where nobody is to notice."""
WITH_ANOTHER = ("fetch.published", "relay.read")
"""Points at which it stands until another one of its role has taken over."""
PARKED: Mapping[str, str] = {
    "unusable_webhook": "`Changes` tells no target now and then",
    "refused": "a 403 leads to `fetch.giving_up_commits`",
}
"""Reasons for which something may be parked."""
SAID_500 = (r"violations: #\d+ platform's ",)
"""An ingress that meets an error on the way to a token says so to Syncaroo; the guide knows no such answer."""


ALONE_AGAIN = "several that fail together are tried again one by one, without a word; only one alone is complained of"
NEED_NOT_TELL: Mapping[str, str] = {
    "fetch.delivered": ALONE_AGAIN,
    "fetch.before_mark_commits": ALONE_AGAIN,
    "fetch.marked": ALONE_AGAIN,
    "fetch.before_outcome_commits": ALONE_AGAIN,
    "fetch.resync_half_marked": ALONE_AGAIN,
    "reconcile.in_transaction": ALONE_AGAIN,
    "reconcile.committed": ALONE_AGAIN,
}
"""Points whose error may leave no word in the log, and why; all others are to."""


@dataclass
class Played:
    """By mode and point: whether the process `was_there`, and how it `lived_on`; why a play `failed`."""

    was_there: set[str] = field(default_factory=set)
    lived_on: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def played(
    request: pytest.FixtureRequest, directory: Path, vhosts: Vhosts, urls: Mapping[str, str]
) -> dict[str, Played]:
    """By database; everything that the selected tests want to happen, has."""
    wanted = {database: set[str]() for database in DATABASES}
    for cell in selected(request, "cell"):
        database, _, play = cell.partition(" ")
        wanted[database].add(play)
    runs = {database: Played() for database in DATABASES}
    async with places(directory, vhosts, urls) as found:
        await asyncio.gather(
            *(_all_stages(runs[database], found[database], plays) for database, plays in wanted.items() if plays)
        )
    return runs


# --- the plays


async def _all_stages(run: Played, place: Place, wanted: set[str]) -> None:
    """The workers while everything changes; then the ingress."""
    with apart(run.failed, *wanted):
        async with onboarded(place, rates=6) as made:
            async with changing(made):
                await asyncio.gather(*(_lane(run, made, role, wanted) for role in WORKERS))
            if wanted & {f"{mode} park.published" for mode in MODES}:
                await _replay_what_was_refused(made)
            await made.ledger(40)
            async with telling(made):
                await _lane(run, made, "ingress", wanted)
            await made.ledger(40, allow=SAID_500)
            reasons = {letter["reason"] for letter in await made.admin.dead_letters()}
            assert reasons <= PARKED.keys(), "a retry would have saved the others"


async def _replay_what_was_refused(made: World) -> None:
    """As an operator does: what leads to `park.published` is a refusal of messages that are right."""
    letters = await until(lambda: made.admin.dead_letters(reason="as_ordered"), what="what was refused")
    for letter in letters:
        await made.admin.replay(letter["id"])


async def _lane(run: Played, made: World, role: str, wanted: set[str]) -> None:
    """A process of this role for each mode; then one as it always is."""
    for mode in MODES:
        points = [point.name for point in POINTS.values() if point.role == role and f"{mode} {point.name}" in wanted]
        if points:
            with apart(run.failed, *(f"{mode} {point}" for point in points)):
                await _play(run, made, role, mode, points)
    if not made.stack.names(role):
        [name] = await made.stack.start(role, settings=same_port(made))
        await at_work(made, name, lives=1)


async def _play(run: Played, made: World, role: str, mode: str, points: Sequence[str]) -> None:
    """The process gets to each of the points, and ends when it is told to, not before."""
    for name in made.stack.names(role):
        assert await made.stack.terminate(name) == 0
    [name] = await made.stack.start(role, command=command(role), settings={**orders(mode, points), **same_port(made)})
    leading = asyncio.create_task(_lead(made, mode, points))
    try:
        await _go_through(run, made, name, mode, points, leading)
    finally:
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
    assert made.stack.running(name), made.stack.exit_code(name)
    if "provider.code_redeemed" in points:
        await made.connect(_other(mode), has_listings=False)  # whatever became of the first attempt
    assert await made.stack.terminate(name) == 0
    _check_errors(made.stack.logs(name), set(points) if mode == "raise" else set())
    run.lived_on |= {f"{mode} {point}" for point in points}


async def _lead(made: World, mode: str, points: Sequence[str]) -> None:
    """To one after another: what leads to the next may be in the way of the one before."""
    for point in points:
        await lead_to(made, point, other=_other(mode))
        await until(marker(made.stack.directory, mode, point).exists, SECONDS, what=f"{point} to be reached")


def _other(mode: str) -> int:
    return SECOND_CONNECTION + MODES.index(mode)


async def _go_through(
    run: Played, made: World, name: str, mode: str, points: Sequence[str], leading: asyncio.Task[None]
) -> None:
    """In whatever order it gets there."""
    left = {point: marker(made.stack.directory, mode, point) for point in points}

    def reached() -> str | None:
        assert made.stack.running(name), f"{name} ended with {made.stack.exit_code(name)}"
        assert not leading.done() or leading.exception() is None, leading.exception()
        return next((point for point, there in left.items() if there.exists()), None)

    while left:
        point = await until(reached, SECONDS, what=f"one of {', '.join(left)} to be reached", pace=0.02)
        there = left.pop(point)
        if mode == "stop":
            await _stand_still(made, name, point, there)
        run.was_there.add(f"{mode} {point}")


async def _stand_still(made: World, name: str, point: str, there: Path) -> None:
    await until(lambda: _is_still(made, name), what=f"{name} to stand still")
    said = {one: len(made.stack.logs(one)) for one in made.stack.names()}
    before = Before(await _owners(made), said, monotonic_seconds())
    is_noticed = NOTICED.get(point, _a_moment_passed)
    others = await made.stack.start(POINTS[point].role) if point in WITH_ANOTHER else []
    await until(
        lambda: is_noticed(made, before, others), SECONDS, what=f"the others to notice that {name} stands still"
    )
    assert _is_still(made, name)
    assert not _went_on(there)
    made.stack.resume(name)
    await until(lambda: _went_on(there), what=f"{name} to go on", pace=0.02)
    for other in others:
        assert await made.stack.terminate(other) == 0


@dataclass(frozen=True)
class Before:
    """What was when the process came to stand still."""

    owners: set[str]
    """Who had claimed something."""
    said: Mapping[str, int]
    """The length of each process's log."""
    moment: float


async def _a_moment_passed(made: World, before: Before, others: Sequence[str]) -> bool:
    """Nobody is to notice."""
    return monotonic_seconds() - before.moment >= STANDS


async def _another_fetched(made: World, before: Before, others: Sequence[str]) -> bool:
    """Its leases ran out, and what it had claimed is another's, or answered."""
    return bool(before.owners) and not before.owners & await _owners(made)


async def _another_leads(made: World, before: Before, others: Sequence[str]) -> bool:
    """It has no pulse."""
    elected = [line for name in others for line in _said(made, name) if line.get("event") == "leader.elected"]
    return "relay" in [line["role"] for line in elected]


async def _the_store_is_away(made: World, before: Before, others: Sequence[str]) -> bool:
    """It has SQLite's lock; PostgreSQL locks rows alone."""
    if not made.stack.environment["DATABASE_URL"].startswith("sqlite"):
        return await _a_moment_passed(made, before, others)
    names = {*before.said, *made.stack.names()}  # of those that were there, nobody may have anything to write
    reasons = [line.get("reason") for name in names for line in _said(made, name, before.said.get(name, 0))]
    return "store: locked by another process" in reasons


NOTICED: Mapping[str, Callable[[World, Before, Sequence[str]], Awaitable[bool]]] = {
    "fetch.published": _another_fetched,
    "relay.read": _another_leads,
    "reconcile.in_transaction": _the_store_is_away,
}
"""How others notice that a process stands still; it stands until then."""


async def _owners(made: World) -> set[str]:
    """Who has claimed something."""
    store = Store(made.stack.environment["DATABASE_URL"])
    try:
        async with store.reading() as transaction:
            rows = await transaction.rows(select(_target.c.lease_owner).where(_target.c.lease_owner.is_not(None)))
    finally:
        await store.close()
    return {row.lease_owner for row in rows}


def _said(made: World, name: str, begun: int = 0) -> list[Mapping[str, Any]]:
    """From that character of its log on."""
    return [_read(line) for line in made.stack.logs(name)[begun:].splitlines()]


def _went_on(there: Path) -> bool:
    return WENT_ON in there.read_text()


def _is_still(made: World, name: str) -> bool:
    return bool(psutil.Process(made.stack.pid(name)).status() == psutil.STATUS_STOPPED)


def _check_errors(logged: str, ordered: set[str]) -> None:
    """Every error that was ordered is told, and nothing else is called one."""
    errors = [line for line in map(_read, logged.splitlines()) if line.get("level") in ("error", "critical")]
    others = [line for line in errors if not _points(line)]
    assert not others
    told = {point for line in errors for point in _points(line)}
    assert told <= ordered
    assert not ordered - told - NEED_NOT_TELL.keys(), "swallowed"


def _points(line: Mapping[str, Any]) -> set[str]:
    """Where the errors were ordered that the line tells."""
    raised = line.get("exception")
    told = raised if isinstance(raised, list) else []
    return {str(one["exc_value"]) for one in told if one["exc_type"] == Ordered.__name__}


def _read(line: str) -> dict[str, Any]:
    try:
        found = loads(line.encode())
    except GatewayError:
        found = None
    return found if isinstance(found, dict) else {"level": "error", "event": line}


# --- what came of it


@pytest.mark.parametrize("cell", cells(["stop"], OF_THE_FLOW))
async def test_a_process_stands_still_at_a_point_and_goes_on_and_nothing_is_lost(
    played: dict[str, Played], cell: str
) -> None:
    """T-KILL: SIGSTOP for a moment, at some points for longer than a lease, then SIGCONT."""
    _check(played, cell)


@pytest.mark.parametrize("cell", cells(["raise"], OF_THE_FLOW))
async def test_a_process_meets_an_error_at_a_point_and_lives_on_and_nothing_is_lost(
    played: dict[str, Played], cell: str
) -> None:
    """T-KILL: of a kind that nobody expects."""
    _check(played, cell)


def _check(played: dict[str, Played], cell: str) -> None:
    database, _, play = cell.partition(" ")
    run = played[database]
    assert play not in run.failed, run.failed[play]
    assert play in run.was_there, "the point was reached"
    assert play in run.lived_on
