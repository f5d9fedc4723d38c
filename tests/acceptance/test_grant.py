"""Our access to Syncaroo survives whatever happens on the way to its tokens: a live pair, or one call for a person.

Processes are killed, stopped for longer than their lease, and surprised by errors, at each step of a refresh and of a
code's exchange; answers get lost, the store is locked, fifty fetches demand a token at once. It all happens once, in
`played`, many gateways side by side, because leases (20 s) can only be waited out; the tests then look at what came of
it. `-k` with a point's name plays that one alone. On PostgreSQL, where a gateway plays several points one after
another, leases are ended in the store instead.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path

import pytest
import pytest_asyncio

from tests.acceptance.conftest import NewDatabase
from tests.acceptance.leads import DATABASES, apart, at_work, cells
from tests.acceptance.store import ask
from tests.acceptance.world import Admin, Place, World, answers, same_port, selected, world
from tests.fixtures.broker import Vhosts
from tests.kill.entry import MODES, WENT_ON, command, marker, orders
from tests.kill.points import OF_THE_GRANT, POINTS, Point
from tests.waiting import until
from workers.fetch.pacing import cap_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

SECONDS = 90.0
"""A deadline for a busy machine, on which a lease (20 s) or the broker's patience (30 s) has to run out, too."""
SLOW = 3.0
"""So many seconds a request is under way that somebody dies in, or that all are to be under way in at once."""
STARTS_AT_ONCE = 6
"""All gateways together would take longer to start than leases last."""
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
    _starting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STARTS_AT_ONCE))

    @asynccontextmanager
    async def started(self, gateway: AbstractAsyncContextManager[World]) -> AsyncIterator[World]:
        """With this gateway, when it is its turn to start."""
        async with AsyncExitStack() as ending:
            async with self._starting:
                made = await ending.enter_async_context(gateway)
            yield made

    @contextmanager
    def play(self, *names: str) -> Iterator[None]:
        """What fails in the block is the failure of these, not the end of everything."""
        with apart(self.outcomes, *names):
            yield
        for name in names:
            self.outcomes.setdefault(name, "")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def played(request: pytest.FixtureRequest, directory: Path, vhosts: Vhosts, new_database: NewDatabase) -> Played:
    """Everything that the selected tests want to happen, has."""
    run, wanted = Played(), selected(request, "play")
    stages = [(database, play) for database in reversed(DATABASES) for play in _stages(run, wanted, database)]
    pool = [vhosts.take() for _ in stages]
    with ExitStack() as ending:
        for vhost in pool:
            ending.callback(vhosts.give_back, vhost)
        urls = [ending.enter_context(new_database()) if database == "postgresql" else None for database, _ in stages]
        places = [Place(directory / str(number), vhost.url, url)
                  for number, (vhost, url) in enumerate(zip(pool, urls, strict=True))]  # fmt: skip
        await asyncio.gather(*(play(place) for (_, play), place in zip(stages, places, strict=True)))
    return run


Stage = Callable[[Place], Awaitable[None]]


def _stages(run: Played, wanted: set[str], database: str) -> list[Stage]:
    """Gateways on this database to be played on; on SQLite alone also what has no point."""
    hits = [Hit(database, mode, name) for name in OF_THE_GRANT for mode in MODES]
    hits = [hit for hit in hits if str(hit) in wanted]
    of_pages = [hit for hit in hits if hit.name in OF_THE_INGRESS]
    renewals, exchanges = (
        _shared([hit for hit in hits if hit not in of_pages and hit.is_renewal == is_renewal])
        for is_renewal in (True, False)
    )
    others = wanted if database == "sqlite" else set[str]()
    stages = [
        (bool(of_pages) or CALLBACKS in others, partial(_pages, run, of_pages)),
        *((True, partial(_renewals, run, some)) for some in renewals),
        *((True, partial(_exchanges, run, some)) for some in exchanges),
        (bool(others & {STAMPEDE, LOST_REPLY}), partial(_demands, run)),
        (LOCKED in others, partial(_locked, run)),
    ]
    return [play for is_wanted, play in stages if is_wanted]


def _shared(hits: list[Hit]) -> list[list[Hit]]:
    """By gateway: one for each point where leases are waited out, one for two where they are not."""
    return [list(some) for _, some in groupby(hits, key=lambda hit: OF_THE_GRANT.index(hit.name) // (2 - hit.waits))]


@dataclass(frozen=True)
class Hit:
    """Something that happens to a process at a point, and is called by its `str`."""

    database: str
    mode: str
    name: str

    def __str__(self) -> str:
        return f"{self.database} {self.mode} {self.name}"

    @property
    def point(self) -> Point:
        return POINTS[self.name]

    @property
    def is_renewal(self) -> bool:
        return self.name.startswith("refresh.")

    @property
    def in_doubt(self) -> bool:
        return self.name in IN_DOUBT

    @property
    def waits(self) -> bool:
        """Whether leases are waited out."""
        return self.database == "sqlite"

    @property
    def leaves_a_lease(self) -> bool:
        """Whether a lease is to be ended, as nobody talks to Syncaroo under it any more: the request of who meets an
        error while it is under way goes on."""
        return not self.waits and not (self.mode == "raise" and self.name.endswith(".sent"))


# --- the plays


async def _renewals(run: Played, hits: list[Hit], place: Place) -> None:
    """A token worker is hit while it renews the pair."""
    with run.play(*map(str, hits)):
        async with run.started(alone(place, "--token-seconds=6")) as made:
            await made.authorise(SECONDS)
            for hit in hits:
                with run.play(str(hit)):
                    await _renewal(made, place, hit)


async def _renewal(made: World, place: Place, hit: Hit) -> None:
    before, calls = await evidence(made), calls_for_a_person(place)
    await retire(made)
    if hit.name == "refresh.sent":
        await _answer_late(made, hit.mode)
    name = await _hit(made, hit)
    order = (await made.sandbox.records()).order
    if hit.mode != "raise":  # who lives on tries again itself
        await made.stack.start("token")
    if hit.leaves_a_lease:
        await _end_lease(made, place)
    outcome = await until(
        partial(_outcome, made, place, order, calls), SECONDS, what="a live pair, or a call", pace=0.5
    )
    if hit.mode == "stop":
        made.stack.resume(name)  # it has the newer pair, or finds that it is too late
        await until(lambda: WENT_ON in _marker(made, hit).read_text(), what="it to go on")
    elif outcome == "lost":
        await made.authorise(SECONDS)
    await until(made.has_grant, SECONDS, what="the grant")
    await renewed(made)
    assert outcome == ("lost" if hit.in_doubt else "live")
    assert calls_for_a_person(place) - calls == (outcome == "lost"), "told once"
    assert made.stack.running(name) == (hit.mode != "kill")
    compare(before, await evidence(made), again=hit.in_doubt)


async def _exchanges(run: Played, hits: list[Hit], place: Place) -> None:
    """A token worker is hit while it exchanges a code; there is a pair that works."""
    with run.play(*map(str, hits)):
        async with run.started(alone(place)) as made:
            await made.authorise(SECONDS)
            for hit in hits:
                with run.play(str(hit)):
                    await _exchange(made, place, hit)


async def _exchange(made: World, place: Place, hit: Hit) -> None:
    """The page says how it ended; whatever that is, what we had goes on working."""
    before = await evidence(made)
    await retire(made)
    async with Admin() as admin:
        link = await admin.allowed(made)
        if hit.name == "callback.sent":
            await _answer_late(made, hit.mode)
        opening = asyncio.create_task(admin.open(link))
        name = await _hit(made, hit)
        await opening
        if hit.mode != "raise":
            await made.stack.start("token")
        if hit.leaves_a_lease:
            await _end_lease(made, place)
        await admin.follow(link, "Not connected" if hit.in_doubt else "Connected")
        if hit.mode == "stop":
            made.stack.resume(name)
            await until(lambda: WENT_ON in _marker(made, hit).read_text(), what="it to go on")
            await admin.follow(link, "Connected")
    assert calls_for_a_person(place) == 0
    assert await made.has_grant()
    await renewed(made, partial(make_due, place))
    assert made.stack.running(name) == (hit.mode != "kill")
    compare(before, await evidence(made), again=hit.in_doubt)


async def _pages(run: Played, hits: list[Hit], place: Place) -> None:
    """The ingress is hit between taking the code and saying so; the admin reloads the page."""
    callbacks = [CALLBACKS] if place.postgresql_url is None else []
    with run.play(*callbacks, *map(str, hits)):
        async with run.started(alone(place)) as made:
            for name in callbacks:
                with run.play(name):
                    await _callbacks(made)
            for hit in hits:
                with run.play(str(hit)):
                    await _page(made, hit)


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


async def _page(made: World, hit: Hit) -> None:
    before = await evidence(made)
    await _replace_ingress(made)
    name = await _start_to_be_hit(made, hit)
    await until(lambda: answers(made.stack.url), SECONDS, what="the ingress to answer")
    async with Admin() as admin:
        link = await admin.allowed(made)
        opening = asyncio.create_task(admin.open(link))
        await until(_marker(made, hit).exists, SECONDS, what=f"{hit.name} to be reached")
        await _RELOAD[hit.mode](made, admin, name, link)
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


async def _reload(made: World, admin: Admin, surprised: str, link: str) -> None:
    await admin.follow(link, "Connected")
    assert made.stack.running(surprised)


_RELOAD = {"kill": _reload_after_the_end, "stop": _reload_elsewhere, "raise": _reload}


async def _replace_ingress(made: World) -> None:
    for name in made.stack.names("ingress"):
        await made.stack.kill(name)


async def _demands(run: Played, place: Place) -> None:
    """Three fetch workers hold a token that Syncaroo refuses, three token workers may renew it."""
    with run.play(STAMPEDE, LOST_REPLY):
        settings = {"FETCH_CONCURRENCY": str(CONCURRENCY)}
        gateway = world(place.directory, amqp_url=place.amqp_url, database_url=place.database_url, settings=settings)
        async with run.started(gateway) as made:
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
    with run.play(LOCKED):
        async with run.started(alone(place, "--token-seconds=6")) as made:
            await made.authorise(SECONDS)
            await retire(made)
            before = await evidence(made)
            stopped = await _hit(made, Hit("sqlite", "stop", "refresh.answered"))
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
        await at_work(made, name, lives=1)  # who is still being loaded would end by the signal itself
        assert await made.stack.terminate(name) == 0


async def _answer_late(made: World, mode: str) -> None:
    """The next request is under way for a while; the answer to one who dies is lost."""
    await made.sandbox.fault("token_slow", seconds=SLOW)
    if mode == "kill":
        await made.sandbox.fault("token_drop", consume=True)


async def _start_to_be_hit(made: World, hit: Hit) -> str:
    role = hit.point.role
    settings = {**orders(hit.mode, [hit.name]), **same_port(made)}
    [name] = await made.stack.start(role, command=command(role), settings=settings)
    return name


async def _hit(made: World, hit: Hit) -> str:
    """A process that has been killed, stands still, or has met an error, at the point."""
    asked = len((await made.sandbox.records()).tokens)
    name = await _start_to_be_hit(made, hit)
    if hit.mode == "kill":
        assert await made.stack.wait(name, SECONDS) == -signal.SIGKILL
    assert await until(_marker(made, hit).exists, SECONDS, what=f"{hit.name} to be reached")
    assert (len((await made.sandbox.records()).tokens) > asked) == (hit.name in PRESENTED), "whether it has left"
    return name


def _marker(made: World, hit: Hit) -> Path:
    return marker(made.stack.directory, hit.mode, hit.name)


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


async def _all_answered(made: World) -> bool:
    return all(one.order_ended is not None for one in (await made.sandbox.records()).tokens)


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
    rows = ask(place.database_url, "SELECT data FROM event WHERE type = 'grant.changed'")
    return sum("needs_authorisation" in data for (data,) in rows)


def make_due(place: Place) -> None:
    _set(place, "refresh_at", "2000-01-01 00:00:00.000000")


def _set_expiry(place: Place, moment: str) -> None:
    _set(place, "expires_at", moment)


def _set(place: Place, column: str, moment: str) -> None:
    ask(place.database_url, f"UPDATE \"grant\" SET {column} = '{moment}'")


async def _end_lease(made: World, place: Place) -> None:
    """It outlasts whatever is under way under it."""
    await until(partial(_all_answered, made), SECONDS, what="Syncaroo to have answered, heard or not")
    ask(place.database_url, "UPDATE \"grant\" SET lease_until = '2000-01-01' WHERE lease_owner IS NOT NULL")


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
    assert after.violations == before.violations


# --- what came of it


@pytest.mark.parametrize("play", cells(["kill"], OF_THE_GRANT))
async def test_a_kill_on_the_way_to_tokens_costs_one_call_for_a_person_at_most(played: Played, play: str) -> None:
    """T-KILL-RT, T-KILL-CB, T-CB-DOWN."""
    assert played.outcomes[play] == ""


@pytest.mark.parametrize("play", cells(["stop"], OF_THE_GRANT))
async def test_who_stands_still_beyond_its_lease_neither_harms_nor_loses_what_it_has(played: Played, play: str) -> None:
    """T-RT-PAUSE: SIGSTOP, another takes over, SIGCONT: the newer pair wins, also over the call for a person."""
    assert played.outcomes[play] == ""


@pytest.mark.parametrize("play", cells(["raise"], OF_THE_GRANT))
async def test_an_error_that_nobody_expects_on_the_way_to_tokens_is_survived(played: Played, play: str) -> None:
    """T-KILL-RT, T-KILL-CB: as a kill, and the process itself goes on."""
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
