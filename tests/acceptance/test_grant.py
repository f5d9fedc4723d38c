"""Our access to Syncaroo survives whatever happens on the way to its tokens: a live pair, or one call for a person.

Processes are killed, and stopped for longer than their lease, at each step of a refresh and of a code's exchange;
answers get lost, the store is locked, fifty fetches demand a token at once. It all happens once, in `played`, many
gateways side by side, because leases (20 s) can only be waited out; the tests then look at what came of it. `-k` with a
point's name plays that one alone.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from common.errors import GatewayError
from ops.stack import StackFailed
from sandbox.driver import DriverError
from tests.acceptance.world import Admin, Place, World, answers, same_port, selected, world
from tests.fixtures.broker import Vhosts
from tests.kill.points import OF_THE_GRANT, POINTS, Point
from tests.waiting import until
from workers.fetch.pacing import cap_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

SECONDS = 90.0
"""A deadline for a busy machine, on which a lease (20 s) or the broker's patience (30 s) has to run out, too."""
SLOW = 3.0
"""So many seconds a request is under way that somebody dies in, or that all are to be under way in at once."""
CONNECTION = 99
OF_THE_INGRESS = ("callback.used", "callback.published")
IN_DOUBT = ("refresh.sent", "refresh.answered", "callback.sent", "callback.exchanged")
"""Syncaroo has used up what was presented, and no other process can know: it may be presented once more."""
DEMANDS, CONCURRENCY = 50, 22
PRESENTED = (*IN_DOUBT, "refresh.committed", "callback.committed")
STAMPEDE, LOST_REPLY, LOCKED, CALLBACKS = "fifty demands", "lost reply", "locked store", "callbacks"


@dataclass
class Played:
    """What came of each play: empty when all was well."""

    outcomes: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def play(self, *names: str) -> Iterator[None]:
        """What fails in the block is the failure of these, not the end of everything."""
        try:
            yield
        except (AssertionError, TimeoutError, aiohttp.ClientError, DriverError, GatewayError, StackFailed) as error:
            for name in names:
                self.outcomes.setdefault(name, f"{type(error).__name__}: {error}")
        for name in names:
            self.outcomes.setdefault(name, "")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def played(request: pytest.FixtureRequest, directory: Path, vhosts: Vhosts) -> Played:
    """Everything that the selected tests want to happen, has."""
    run = Played()
    stages = [play for wanted, play in _stages(run, selected(request, "play")) if wanted]
    pool = [vhosts.take() for _ in stages]
    places = [Place(directory / str(number), vhost.url) for number, vhost in enumerate(pool)]
    await asyncio.gather(*(play(place) for play, place in zip(stages, places, strict=True)))
    for vhost in pool:
        vhosts.give_back(vhost)
    return run


Stage = tuple[bool, Callable[[Place], Awaitable[None]]]


def _stages(run: Played, wanted: set[str]) -> list[Stage]:
    """Gateways to be played on, and whether anything is."""
    by_point = {name: [mode for mode in ("kill", "stop") if f"{mode} {name}" in wanted] for name in OF_THE_GRANT}
    renewals = [(bool(by_point[name]), partial(_renewals, run, POINTS[name], by_point[name]))
                for name in OF_THE_GRANT if name.startswith("refresh.")]  # fmt: skip
    exchanges = [(bool(by_point[name]), partial(_exchanges, run, POINTS[name], by_point[name]))
                 for name in OF_THE_GRANT if POINTS[name].role == "token" and name.startswith("callback.")]  # fmt: skip
    pages = [(mode, name) for name in OF_THE_INGRESS for mode in by_point[name]]
    return [
        *renewals,
        *exchanges,
        (bool(pages) or CALLBACKS in wanted, partial(_pages, run, pages)),
        (bool(wanted & {STAMPEDE, LOST_REPLY}), partial(_demands, run)),
        (LOCKED in wanted, partial(_locked, run)),
    ]


# --- the plays


async def _renewals(run: Played, point: Point, modes: list[str], place: Place) -> None:
    """A token worker is hit there while it renews the pair, in each mode."""
    names = [f"{mode} {point.name}" for mode in modes]
    with run.play(*names):
        async with alone(place, "--token-seconds=6") as made:
            await made.authorise(SECONDS)
            for mode, name in zip(modes, names, strict=True):
                with run.play(name):
                    await _renewal(made, place, point, mode)


async def _renewal(made: World, place: Place, point: Point, mode: str) -> None:
    before, calls = await evidence(made), calls_for_a_person(place)
    await retire(made)
    if point.name == "refresh.sent":
        await _answer_late(made, mode)
    hit = await _hit(made, point, mode)
    order = (await made.sandbox.records()).order
    await made.stack.start("token")
    outcome = await until(partial(_outcome, made, place, order, calls), SECONDS, what="a live pair, or a call")
    if mode == "stop":
        made.stack.resume(hit)  # it has the newer pair, or finds that it is too late
    elif outcome == "lost":
        await made.authorise(SECONDS)
    await until(made.has_grant, SECONDS, what="the grant")
    await renewed(made)
    assert outcome == ("lost" if point.name in IN_DOUBT else "live")
    assert calls_for_a_person(place) - calls == (outcome == "lost"), "told once"
    compare(before, await evidence(made), again=point.name in IN_DOUBT)


async def _exchanges(run: Played, point: Point, modes: list[str], place: Place) -> None:
    """A token worker is hit there while it exchanges a code, in each mode; there is a pair that works."""
    names = [f"{mode} {point.name}" for mode in modes]
    with run.play(*names):
        async with alone(place) as made:
            await made.authorise(SECONDS)
            for mode, name in zip(modes, names, strict=True):
                with run.play(name):
                    await _exchange(made, place, point, mode)


async def _exchange(made: World, place: Place, point: Point, mode: str) -> None:
    """The page says how it ended; whatever that is, what we had goes on working."""
    before = await evidence(made)
    await retire(made)
    async with Admin() as admin:
        link = await admin.allowed(made)
        if point.name == "callback.sent":
            await _answer_late(made, mode)
        opening = asyncio.create_task(admin.open(link))
        hit = await _hit(made, point, mode)
        await opening
        await made.stack.start("token")
        await admin.follow(link, "Not connected" if point.name in IN_DOUBT else "Connected")
        if mode == "stop":
            made.stack.resume(hit)
            await admin.follow(link, "Connected")
    assert calls_for_a_person(place) == 0
    assert await made.has_grant()
    await renewed(made, partial(make_due, place))
    compare(before, await evidence(made), again=point.name in IN_DOUBT)


async def _pages(run: Played, hits: list[tuple[str, str]], place: Place) -> None:
    """The ingress is hit between taking the code and saying so; the admin reloads the page."""
    with run.play(CALLBACKS, *(f"{mode} {name}" for mode, name in hits)):
        async with alone(place) as made:
            with run.play(CALLBACKS):
                await _callbacks(made)
            for mode, name in hits:
                with run.play(f"{mode} {name}"):
                    await _page(made, POINTS[name], mode)


async def _callbacks(made: World) -> None:
    """Of all that comes back from Syncaroo, one link is exchanged, once."""
    before = await evidence(made)
    async with Admin() as admin, Admin() as other:
        link, refused = await admin.allowed(made), await other.allowed(made)
        for wrong in (f"{link}x", refused, link.partition("&state=")[0], re.sub("code=[^&]+&", "", link)):
            assert (await admin.open(wrong)).status == 400, "a state, this browser's, and a code"
        declined = await other.open(re.sub("code=[^&]+&", "error=access_denied&", refused))
        assert (declined.status, declined.heading) == (200, "Not connected")
        assert (await other.open(refused)).heading == "Not connected", "that state is used up"
        assert {page.status for page in await asyncio.gather(*(admin.open(link) for _ in range(5)))} == {200}
        await admin.follow(link, "Connected")
    after = await evidence(made)
    assert after.exchanges == [*before.exchanges, "issued"]
    compare(before, after, again=False)


async def _page(made: World, point: Point, mode: str) -> None:
    before = await evidence(made)
    await _replace_ingress(made)
    hit = await _start_to_be_hit(made, point, mode)
    await until(lambda: answers(made.stack.url), SECONDS, what="the ingress to answer")
    async with Admin() as admin:
        link = await admin.allowed(made)
        opening = asyncio.create_task(admin.open(link))
        await until(_marker(made, point, mode).exists, SECONDS, what=f"{point.name} to be reached")
        await (_reload_after_the_end if mode == "kill" else _reload_elsewhere)(made, admin, hit, link)
        await asyncio.gather(opening, return_exceptions=True)
        await admin.follow(await admin.allowed(made), "Connected")  # behind whatever else was handed on
    after = await evidence(made)
    assert after.exchanges == [*before.exchanges, "issued", "issued"]
    compare(before, after, again=False)


async def _reload_after_the_end(made: World, admin: Admin, killed: str, link: str) -> None:
    assert await made.stack.wait(killed, SECONDS) == -signal.SIGKILL
    await made.stack.start("ingress", settings=same_port(made))
    await admin.follow(link, "Connected")


async def _reload_elsewhere(made: World, admin: Admin, stopped: str, link: str) -> None:
    """By way of another ingress; the one that stood still goes on with what it was at."""
    [other] = await made.stack.start("ingress")
    await admin.follow(link.replace(made.stack.url, made.stack.url_of(other)), "Connected")
    made.stack.resume(stopped)
    await until(lambda: answers(made.stack.url), SECONDS, what="the ingress to answer again")


async def _replace_ingress(made: World) -> None:
    for name in made.stack.names("ingress"):
        await made.stack.kill(name)


async def _demands(run: Played, place: Place) -> None:
    """Three fetch workers hold a token that Syncaroo refuses, three token workers may renew it."""
    with run.play(STAMPEDE, LOST_REPLY):
        settings = {"FETCH_CONCURRENCY": str(CONCURRENCY)}
        async with world(
            place.directory, amqp_url=place.amqp_url, database_url=place.database_url, settings=settings
        ) as made:
            for role in ("token", "fetch"):
                await made.stack.start(role, 2)
            await made.onboard(CONNECTION)
            with run.play(STAMPEDE):
                await _stampede(made, place)
            with run.play(LOST_REPLY):
                await _lost_reply(made, place)


async def _stampede(made: World, place: Place) -> None:
    """All is wanted while nobody may fetch; the token that they then may use is dead, and each hears so when all have
    used it. One process fetches 17 of a connection at once at most: that takes three."""
    assert cap_of(CONCURRENCY) * 2 < DEMANDS <= cap_of(CONCURRENCY) * 3
    _set_expiry(place, "2000-01-01 00:00:00.000000")
    await made.sandbox.burst(DEMANDS, DEMANDS, connection_id=CONNECTION)
    await until(partial(_are_due, made, DEMANDS), SECONDS, what="all to be wanted")
    order, answered = (await made.sandbox.records()).order, _answered(made)
    await made.sandbox.expire_access()
    await made.sandbox.fault("api_slow", seconds=SLOW, count=DEMANDS)
    await made.sandbox.fault("token_slow", seconds=1)
    _set_expiry(place, "2100-01-01 00:00:00.000000")
    await made.ledger(SECONDS)
    records = await made.sandbox.records(after=order)
    refused = [call for call in records.calls if call.status == 401]
    assert [one.outcome for one in records.tokens] == ["issued"]
    assert len(refused) == DEMANDS
    assert max(call.order_began for call in refused) < min(call.order_ended or 0 for call in refused), "all at once"
    assert all(number > answered[name] for name, number in _answered(made).items()), "each process"


def _answered(made: World) -> dict[str, int]:
    """How many calls each process that fetches has seen through."""
    return {name: made.stack.logs(name).count("fetch.answered") for name in made.stack.names("fetch")}


async def _lost_reply(made: World, place: Place) -> None:
    """The work waits for a person, and goes on by itself."""
    order = (await made.sandbox.records()).order
    await made.sandbox.fault("token_drop", consume=True)
    make_due(place)
    await until(lambda: _told(made)[1:], SECONDS, what="the call for a person")
    await made.sandbox.burst(20, 20, connection_id=CONNECTION)
    presented = [one.outcome for one in (await made.sandbox.records(after=order)).tokens]
    assert presented == ["dropped", "reused_after_drop"]
    assert await until(lambda: _waits(made), SECONDS, what="the work to wait")
    await made.authorise(SECONDS)
    await made.ledger(SECONDS)
    assert _told(made) == ["active", "needs_authorisation", "active"]
    assert "grant.needs_authorisation" in "".join(made.stack.logs(name) for name in made.stack.names("token"))


async def _locked(run: Played, place: Place) -> None:
    """Syncaroo has answered, and nobody can write: the pair waits on the broker, sealed."""
    point = POINTS["refresh.answered"]
    with run.play(LOCKED):
        async with alone(place, "--token-seconds=6") as made:
            await made.authorise(SECONDS)
            await retire(made)
            before = await evidence(made)
            stopped = await _hit(made, point, "stop")
            with lock(place):
                made.stack.resume(stopped)
                await until(lambda: "grant.pair_published" in made.stack.logs(stopped), SECONDS, what="the pair")
            await renewed(made)
            assert calls_for_a_person(place) == 0
            compare(before, await evidence(made), again=False)


# --- what they are made of


def alone(
    place: Place,
    *flags: str,
    settings: Mapping[str, str] | None = None,
    roles: Sequence[str] = ("ingress", "token"),
) -> AbstractAsyncContextManager[World]:
    """A gateway that has nothing to do but to get tokens."""
    return world(
        place.directory,
        amqp_url=place.amqp_url,
        database_url=place.database_url,
        settings=settings,
        sandbox=flags,
        roles=roles,
    )


async def retire(made: World) -> None:
    """Whoever comes next is alone."""
    for name in made.stack.names("token"):
        assert await made.stack.terminate(name) == 0


async def _answer_late(made: World, mode: str) -> None:
    """The next request is under way for a while; the answer to one who dies is lost."""
    await made.sandbox.fault("token_slow", seconds=SLOW)
    if mode == "kill":
        await made.sandbox.fault("token_drop", consume=True)


async def _start_to_be_hit(made: World, point: Point, mode: str) -> str:
    marker = _marker(made, point, mode)
    settings = {"KILL_POINT": point.name, "KILL_MODE": mode, "KILL_MARKER": str(marker), **same_port(made)}
    command = ["-m", "tests.kill.entry", point.role]
    [name] = await made.stack.start(point.role, command=command, settings=settings)
    return name


async def _hit(made: World, point: Point, mode: str) -> str:
    """A process that has been killed, or stands still, at the point."""
    asked = len((await made.sandbox.records()).tokens)
    name = await _start_to_be_hit(made, point, mode)
    if mode == "kill":
        assert await made.stack.wait(name, SECONDS) == -signal.SIGKILL
    assert await until(_marker(made, point, mode).exists, SECONDS, what=f"{point.name} to be reached")
    assert (len((await made.sandbox.records()).tokens) > asked) == (point.name in PRESENTED), "whether it has left"
    return name


def _marker(made: World, point: Point, mode: str) -> Path:
    return made.stack.directory / f"{mode}.{point.name}.reached"


async def _outcome(made: World, place: Place, order: int, calls: int) -> str:
    if calls_for_a_person(place) > calls:
        return "lost"
    return "live" if await issued(made, order) and await made.has_grant() else ""


async def renewed(made: World, brought_about: Callable[[], None] = lambda: None) -> None:
    """What we hold is live: Syncaroo takes it for a newer pair."""
    order = (await made.sandbox.records()).order
    brought_about()
    await until(partial(issued, made, order), SECONDS, what="the next renewal", pace=0.5)


async def issued(made: World, order: int) -> int:
    tokens = (await made.sandbox.records(after=order)).tokens
    return sum(one.outcome == "issued" and one.order_began > order for one in tokens)


async def _are_due(made: World, targets: int) -> bool:
    return bool((await made.admin.status())["targets"]["due"] == targets)


async def _waits(made: World) -> bool:
    status = await made.admin.status()
    return bool(status["grant"]["state"] == "needs_authorisation" and status["targets"]["due"])


def _told(made: World) -> list[str]:
    """What subscribers have heard of the grant."""
    told = {event["id"]: event["data"]["state"] for event in made.events if event["type"] == "grant.changed"}
    return list(told.values())


def calls_for_a_person(place: Place) -> int:
    """Events that say `needs_authorisation`, whether somebody listens or not."""
    with sqlite3.connect(place.database) as store:
        rows = store.execute("SELECT data FROM event WHERE type = 'grant.changed'").fetchall()
    store.close()
    return sum("needs_authorisation" in data for (data,) in rows)


def make_due(place: Place) -> None:
    _set(place, "refresh_at", "2000-01-01 00:00:00.000000")


def _set_expiry(place: Place, moment: str) -> None:
    _set(place, "expires_at", moment)


def _set(place: Place, column: str, moment: str) -> None:
    with sqlite3.connect(place.database, timeout=30) as store:
        store.execute(f'UPDATE "grant" SET {column} = ?', (moment,))
    store.close()


@contextmanager
def lock(place: Place) -> Iterator[None]:
    """Nobody can write to the store meanwhile."""
    locker = sqlite3.connect(place.database, isolation_level=None, timeout=30)
    locker.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        locker.rollback()
        locker.close()


@dataclass(frozen=True)
class Evidence:
    """What Syncaroo saw of our requests for tokens."""

    exchanges: list[str]
    overlapping: int
    again: int
    violations: int


async def evidence(made: World) -> Evidence:
    tokens = (await made.sandbox.records()).tokens
    found = await made.sum()
    exchanges = [one.outcome for one in tokens if one.grant_type == "authorization_code"]
    return Evidence(exchanges, len(found.overlapping), len(found.presented_again), len(found.violations))


def compare(before: Evidence, after: Evidence, *, again: bool) -> None:
    """Never two requests at once; once more at most, and only by who could not know (CONTRACT §5.4)."""
    assert after.overlapping == before.overlapping
    assert after.again - before.again <= again
    assert after.violations - before.violations <= again


# --- what came of it


@pytest.mark.parametrize("play", [f"kill {name}" for name in OF_THE_GRANT])
async def test_a_kill_on_the_way_to_tokens_costs_one_call_for_a_person_at_most(played: Played, play: str) -> None:
    """T-KILL-RT, T-KILL-CB, T-CB-DOWN."""
    assert played.outcomes[play] == ""


@pytest.mark.parametrize("play", [f"stop {name}" for name in OF_THE_GRANT])
async def test_who_stands_still_beyond_its_lease_neither_harms_nor_loses_what_it_has(played: Played, play: str) -> None:
    """T-RT-PAUSE: SIGSTOP, another takes over, SIGCONT: the newer pair wins, also over the call for a person."""
    assert played.outcomes[play] == ""


@pytest.mark.parametrize("play", [CALLBACKS])
async def test_of_all_that_comes_back_one_link_is_exchanged_once(played: Played, play: str) -> None:
    """T-CB-STATE, T-CB-ERROR, T-CB-DOUBLE."""
    assert played.outcomes[play] == ""


@pytest.mark.parametrize("play", [STAMPEDE])
async def test_fifty_demands_in_three_processes_are_one_refresh(played: Played, play: str) -> None:
    """T-RT-STAMPEDE, T-RT-REUSE."""
    assert played.outcomes[play] == ""


@pytest.mark.parametrize("play", [LOST_REPLY])
async def test_after_a_lost_reply_work_waits_for_a_person_and_goes_on_by_itself(played: Played, play: str) -> None:
    """T-RT-LOSTRESP."""
    assert played.outcomes[play] == ""


@pytest.mark.parametrize("play", [LOCKED])
async def test_a_pair_that_nobody_can_store_is_kept_by_the_broker(played: Played, play: str) -> None:
    """T-RT-DBFAIL."""
    assert played.outcomes[play] == ""
