"""Processes are ended, killed, and killed at every point of `tests.kill.points`, under load: nothing is lost.

It all happens once, in `killed`, both databases side by side, because leases (15 s) can only be waited out; the tests
then look at what came of it. `-k` with a point's or process's name plays that one alone. Points on the way to
Syncaroo's tokens are `test_grant`'s.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from common.errors import GatewayError
from ops.stack import WORKERS
from sandbox.driver import DriverError
from tests.acceptance.world import (
    Changes,
    Place,
    World,
    again_and_again,
    answers,
    same_port,
    selected,
    webhook_body,
    world,
)
from tests.fixtures.broker import Vhosts
from tests.kill.points import OF_THE_GRANT, POINTS, Point
from tests.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

CONNECTION, SECOND_CONNECTION = 99, 100
PROCESSES = (*WORKERS, "ingress")
ON_POSTGRESQL = (
    "fetch.before_mark_commits",
    "fetch.before_outcome_commits",
    "fetch.putting_off_commits",
    "fetch.giving_up_commits",
    "fetch.before_suspects_commit",
    "fetch.resync_half_marked",
    "reconcile.in_transaction",
    "reconcile.committed",
    *(name for name in POINTS if name.startswith("relay.")),
)
"""Gone through on PostgreSQL, too: points in and right after a transaction, and all of the relay."""
DEATH_SECONDS = 90.0
"""A deadline for a busy machine; two gateways are played side by side."""
PAGE_SIZE = 2
PAUSE = 0.25
"""Seconds between changes: slow enough for a busy machine to keep up while a process is dead now and then."""


@dataclass
class Killed:
    """What came of it: `codes` by process and signal or by point, whether the `markers` were there, what `failed`."""

    codes: dict[str, int] = field(default_factory=dict)
    markers: dict[str, bool] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    walked: str = ""
    """The list in whose walk a process died."""

    @contextmanager
    def group(self, *names: str) -> Iterator[None]:
        """What fails in the block is the failure of these, not the end of everything."""
        try:
            yield
        except (AssertionError, TimeoutError, aiohttp.ClientError, DriverError, GatewayError) as error:
            for name in names:
                self.failed.setdefault(name, f"{type(error).__name__}: {error}")

    async def end(self, made: World, role: str) -> None:
        """SIGTERM and start again; SIGKILL."""
        [name] = made.stack.names(role)
        self.codes[f"{role} TERM"] = await made.stack.terminate(name)
        await made.stack.restart(name)
        await _at_work(made, name, lives=2)
        self.codes[f"{role} KILL"] = await made.stack.kill(name)

    async def die_at(
        self,
        made: World,
        point: Point,
        and_do: Callable[[], Coroutine[object, object, None]],
        *,
        nth: int | None = None,
    ) -> None:
        """The role runs through the entry point until it has died there. `and_do` is what leads to the point."""
        stack, marker = made.stack, made.stack.directory / f"{point.name}.reached"
        for name in stack.names(point.role):
            await stack.terminate(name)
        settings = {
            "KILL_POINT": point.name,
            "KILL_NTH": str(nth or point.nth),
            "KILL_MARKER": str(marker),
            **same_port(made),
        }
        command = ["-m", "tests.kill.entry", point.role]
        [name] = await stack.start(point.role, command=command, settings=settings)
        doing = asyncio.create_task(and_do())
        try:
            self.codes[point.name] = await stack.wait(name, DEATH_SECONDS)
        finally:
            await doing
            self.markers[point.name] = marker.exists()


@dataclass
class Both:
    """What came of it on each database."""

    sqlite: Killed = field(default_factory=Killed)
    postgresql: Killed = field(default_factory=Killed)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(request: pytest.FixtureRequest, directory: Path, vhosts: Vhosts, postgresql_url: str) -> Both:
    """Everything that the selected tests want killed, has been."""
    wanted, on_postgresql = selected(request, "process", "point"), selected(request, "on_postgresql")
    run = Both()
    pool = [vhosts.take() for _ in range(2)]
    places = [
        Place(directory / str(number), vhost.url, url)
        for number, (vhost, url) in enumerate(zip(pool, (postgresql_url, None), strict=True))
    ]
    for place in places:
        place.directory.mkdir()
    plays = [_all_stages(run.postgresql, places[0], on_postgresql)] if on_postgresql else []
    plays += [_all_stages(run.sqlite, places[1], wanted)] if wanted else []
    await asyncio.gather(*plays)
    for vhost in pool:
        vhosts.give_back(vhost)
    return run


@pytest.fixture
def killed(both: Both) -> Killed:
    """What came of it on SQLite."""
    return both.sqlite


# --- the plays


async def _all_stages(run: Killed, place: Place, wanted: set[str]) -> None:
    """The workers while everything changes; then the ingress, whose callers are left without an answer.

    What is told while the ingress dies has not changed, and is one location: it makes good nothing that a worker lost.
    """
    settings, flags = {"ACCESS_TOKEN_SECONDS": "8"}, ["--rates=4", f"--page-size={PAGE_SIZE}"]
    with run.group(*wanted):
        async with world(
            place.directory, amqp_url=place.amqp_url, database_url=place.database_url, settings=settings, sandbox=flags
        ) as made:
            await made.onboard(CONNECTION)
            async with again_and_again(Changes(made, CONNECTION), PAUSE):
                await asyncio.gather(*(_lane(run, made, role, wanted) for role in WORKERS))
            if run.walked:
                await made.ledger(40)
                if not await _went_on(made, run.walked):
                    run.failed.setdefault("fetch.walk_kept", "the walk began again")
            async with again_and_again(lambda _: made.sandbox.burst(1, 1, connection_id=CONNECTION, wait=False)):
                await _lane(run, made, "ingress", wanted)
                if "provider.code_redeemed" in wanted:
                    await made.connect(SECOND_CONNECTION, has_listings=False)
            await made.ledger(40, allow=["violations"])  # an ingress that is killed does not answer


async def _lane(run: Killed, made: World, role: str, wanted: set[str]) -> None:
    """A process of this role is ended in good order, killed, and dies at point after point; then one lives."""
    if role in wanted:
        await run.end(made, role)
    points = [point for point in POINTS.values() if point.role == role and point.name in wanted]
    for point in points:
        with run.group(point.name):
            await run.die_at(made, point, partial(_lead_to, run, made, point))
    if not made.stack.names(role):
        [name] = await made.stack.start(role, settings=same_port(made))
        await _at_work(made, name, lives=1)


async def _lead_to(run: Killed, made: World, point: Point) -> None:
    """What nothing brings about by itself: another user's connection, answers that fail, what is gone, a resync."""
    match point.name:
        case "provider.code_redeemed":
            await until(lambda: answers(made.stack.url), 20, what="the ingress to answer")
            with suppress(AssertionError, aiohttp.ClientError, GatewayError):
                await made.connect(SECOND_CONNECTION, has_listings=False)
        case "fetch.walk_kept":
            run.walked = await _tell_list(made, (await _long_lists(made))[-1])
        case "fetch.putting_off_commits":
            await made.sandbox.fault("api_status", status=500)
        case "fetch.giving_up_commits":
            await made.sandbox.fault("api_status", status=403)
        case "fetch.gone_published":
            url = (await _long_lists(made))[0]
            await made.sandbox.change("remove", (await made.sandbox.world()).collections[url][0])
        case "fetch.before_suspects_commit" | "fetch.suspected":
            # Of the oldest rooms: a new one's rates may not be known yet. A webhook may show of one that it is gone.
            for url in sorted(await _long_lists(made))[:3]:
                await made.sandbox.change("remove", (await made.sandbox.world()).collections[url][0], webhook=False)
                await _tell_list(made, url)
        case "fetch.resync_half_marked":
            location_id = next(iter((await made.sandbox.connections())[CONNECTION].locations.values()))
            body = webhook_body(CONNECTION, None, "rates", location_id=location_id)
            await made.sandbox.webhook(CONNECTION, body)


async def _long_lists(made: World) -> list[str]:
    """The lists of rates that have more than one page, the longest last; without one of their rates, the first ones
    have one page, and `Changes` asks for them no more."""
    lists = (await made.sandbox.world()).collections
    long = [url for url in lists if url.endswith("/rates") and len(lists[url]) > PAGE_SIZE]
    return sorted(long, key=lambda url: (len(lists[url]), url))


async def _tell_list(made: World, url: str) -> str:
    """A webhook for the list, in a spelling that nobody else uses; gives that."""
    own = f"{url}/"
    await made.sandbox.webhook(CONNECTION, webhook_body(CONNECTION, own, "rates"), url=own)
    return own


async def _went_on(made: World, url: str) -> bool:
    """Whether the walk whose process died was taken up where it was, not at its first page."""
    return [call.url for call in (await made.sandbox.records()).calls].count(url) == 1


async def _at_work(made: World, name: str, lives: int) -> None:
    """Returns when the process runs for the so-manieth time, the ingress also answers."""
    await until(lambda: made.stack.logs(name).count("process.started") >= lives, 20, what=f"{name} to start")
    if name.startswith("ingress"):
        await until(lambda: answers(made.stack.url), 20, what=f"{name} to answer")


# --- what came of it


@pytest.mark.parametrize("process", PROCESSES)
async def test_a_process_ends_in_good_order_or_by_kill_and_nothing_is_lost(killed: Killed, process: str) -> None:
    """T-TERM."""
    assert process not in killed.failed, killed.failed[process]
    assert killed.codes[f"{process} TERM"] == 0
    assert killed.codes[f"{process} KILL"] == -signal.SIGKILL


@pytest.mark.parametrize("point", sorted(POINTS.keys() - {*OF_THE_GRANT}))
async def test_a_process_dies_at_a_point_and_nothing_is_lost(killed: Killed, point: str) -> None:
    """T-KILL-ING, T-KILL-FETCH, T-KILL-REC, T-KILL-OUT, T-KILL-OP (`provider.…`): every point is reached, and the sum
    is right afterwards."""
    _died(killed, point)


@pytest.mark.parametrize("on_postgresql", ON_POSTGRESQL)
async def test_a_process_dies_in_a_transaction_and_nothing_is_lost(both: Both, on_postgresql: str) -> None:
    """T-KILL-FETCH, T-KILL-REC, T-KILL-OUT."""
    _died(both.postgresql, on_postgresql)


def _died(killed: Killed, point: str) -> None:
    assert point not in killed.failed, killed.failed[point]
    assert killed.markers[point], "the point was reached"
    assert killed.codes[point] == -signal.SIGKILL
