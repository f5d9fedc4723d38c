"""Renewing Syncaroo's tokens against a strict stand-in, on both databases (RELIABILITY §3.8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet

from common.errors import BrokerUnavailable, StoreUnavailable
from common.store import engine
from common.store.engine import Transaction
from schemas.tables import GrantRow, table_of
from tests.component.token_parts import Bench, Worker, bench
from tests.waiting import until, within
from workers.fetch.store.grants import GrantStore as Refused
from workers.token import keeping
from workers.token import store as token_store
from workers.token.refresh import Pace
from workers.token.rules import Look
from workers.token.store import Claim, GrantStore


@pytest.fixture(name="bench")
async def _bench(database_url: str) -> AsyncIterator[Bench]:
    async with bench(database_url) as made:
        yield made


@pytest.fixture(params=["good", "flaky"])
def mood(request: pytest.FixtureRequest, bench: Bench) -> str:
    """A stand-in that is well, or one that fails every other time, using nothing up."""
    if request.param == "flaky":
        bench.order("token_status", count=None, probability=0.4)
        bench.order("token_drop", count=None, probability=0.3, consume=False)
    return str(request.param)


async def renewed(bench: Bench, version: int) -> None:
    async def reached() -> bool:
        return bool((await bench.grant()).rt_version >= version)

    await until(reached, what=f"version {version}")


async def test_a_pair_that_the_api_refused_is_renewed_once(bench: Bench) -> None:
    """T-API-401, T-RT-401LOOP: its successor is too new to be renewed over another refusal."""
    await bench.authorise(due=False)
    fetching = Refused(bench.store)
    worker = bench.worker()
    async with bench.running(worker):
        assert await fetching.reject_token(1)
        await renewed(bench, 2)
        assert await fetching.reject_token(1), "it has a successor"
        assert not await fetching.reject_token(2)
        assert await bench.holds_live_pair()
    assert bench.requests.count("issued") == 1


@pytest.mark.usefixtures("mood")
async def test_a_due_pair_is_renewed_again_and_again(bench: Bench) -> None:
    await bench.authorise()
    worker = bench.worker()
    async with bench.running(worker):
        for version in range(2, 7):
            await renewed(bench, version)
            assert await bench.holds_live_pair()
            if version < 6:
                await bench.change(refresh_at=timedelta(0))
    row = await bench.grant()
    left, wait = row.expires_at - row.refresh_at, row.refresh_at
    assert timedelta(seconds=170) < left < timedelta(seconds=245)
    async with bench.store.reading() as transaction:
        assert timedelta(seconds=330) < wait - await transaction.now() < timedelta(seconds=430)
    assert (row.state, row.lease_owner, row.lease_until, row.intent, row.attempts, row.last_error) == (
        ("active", None, None, None, 0, None)
    )
    assert bench.requests.count("issued") == 5
    assert await bench.events() == []
    assert bench.violations() == []


async def test_a_pair_that_is_not_due_is_left_alone(bench: Bench) -> None:
    await bench.authorise(due=False)
    worker = bench.worker()
    await worker.refresher.refresh_if_due()
    assert bench.requests == []


@pytest.mark.usefixtures("mood")
async def test_many_workers_present_a_token_once(bench: Bench) -> None:
    """T-RT-STAMPEDE, T-RT-REUSE"""
    await bench.authorise()
    workers = [bench.worker() for _ in range(4)]
    async with bench.running(*workers):
        for version in range(2, 6):
            bench.order("token_slow", seconds=0.05)
            await renewed(bench, version)
            await bench.change(refresh_at=timedelta(0) if version < 5 else timedelta(seconds=100))
    bench.assert_one_at_a_time()
    assert bench.violations() == []
    assert bench.requests.count("issued") in (4, 5)  # the last change may have come too late for one more
    assert await bench.holds_live_pair()


async def test_a_lost_answer_ends_in_one_call_for_a_person(bench: Bench) -> None:
    """T-RT-LOSTRESP"""
    await bench.authorise()
    bench.order("token_drop", consume=True)
    async with bench.running(bench.worker(), bench.worker()):
        await until(bench.events, what="grant.changed")
    assert bench.requests == ["dropped", "reused_after_drop"]
    assert await bench.events() == ["needs_authorisation"]
    row = await bench.grant()
    assert (row.state, row.rt_version, row.lease_owner, row.intent) == ("needs_authorisation", 1, None, None)
    assert bench.violations() == []


async def test_a_refusal_is_not_asked_for_again_because_the_store_was_away(bench: Bench) -> None:
    """T-RT-LOSTRESP: the verdict is kept until the store takes it; the token is not presented a third time."""
    await bench.authorise()
    bench.order("token_drop", consume=True)
    worker = bench.worker()
    worker.grants.verdict_failures = 3
    async with bench.running(worker):
        await until(bench.events, what="grant.changed")
    assert bench.requests == ["dropped", "reused_after_drop"]
    assert await bench.events() == ["needs_authorisation"]


async def test_a_request_that_never_arrived_is_repeated(bench: Bench) -> None:
    """T-RT-NOTSENT"""
    await bench.authorise()
    bench.order("token_drop", consume=False, count=2)
    async with bench.running(bench.worker()):
        await renewed(bench, 2)
    assert bench.requests == ["dropped", "dropped", "issued"]
    assert await bench.events() == []


async def test_a_syncaroo_that_is_away_is_tried_again(bench: Bench, unused_tcp_port: int) -> None:
    """T-RT-NOTSENT: what provably was not sent leaves no intent behind."""
    await bench.authorise()
    away = bench.worker(base_url=f"http://127.0.0.1:{unused_tcp_port}")

    async def tried_twice() -> bool:
        return bool((await bench.grant()).attempts >= 2)

    async with bench.running(away):
        await until(tried_twice)
    row = await bench.grant()
    assert (row.state, row.intent, row.last_error) == ("active", None, "ClientConnectorError")
    async with bench.running(bench.worker()):
        await renewed(bench, 2)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_any_other_refusal_is_no_verdict(bench: Bench, status: int) -> None:
    """T-RT-BADRESP"""
    await bench.authorise()
    bench.order("token_status", status=status, count=3)
    async with bench.running(bench.worker()):
        await renewed(bench, 2)
    assert bench.requests == ["failed", "failed", "failed", "issued"]
    assert await bench.events() == []


@pytest.mark.parametrize(("kind", "value"), [("token_html", ""), ("token_missing", "refreshToken"),
                                             ("token_missing", "accessToken")])  # fmt: skip
async def test_half_an_answer_is_never_stored(bench: Bench, kind: str, value: str) -> None:
    """T-RT-BADRESP: and since the token is used up, a person is called."""
    before = await bench.authorise()
    bench.order(kind, value=value)
    async with bench.running(bench.worker()):
        await until(bench.events)
    assert (await bench.pair()).refresh_token == before
    assert await bench.events() == ["needs_authorisation"]


async def test_a_missing_lifetime_is_ten_minutes(bench: Bench) -> None:
    """T-RT-BADRESP"""
    await bench.authorise()
    bench.order("token_missing", value="expiresIn")
    async with bench.running(bench.worker()):
        await renewed(bench, 2)
    assert await bench.holds_live_pair()


async def test_back_off_holds_for_everybody_and_for_hurried_fetchers(bench: Bench) -> None:
    """Never a hot loop: after a failure nobody tries before the delay is over, whatever `refresh_at` says."""
    await bench.authorise()
    bench.order("token_status", status=503)
    first, other = bench.worker(delays=(timedelta(hours=1),)), bench.worker()
    await first.refresher.refresh_if_due()
    await bench.change(refresh_at=timedelta(0))
    for worker in (first, other):
        await worker.refresher.refresh_if_due()
    assert bench.requests == ["failed"]
    row = await bench.grant()
    assert (row.lease_owner, row.intent, row.attempts, row.last_error) == (None, "refresh", 1, "HTTP 503")


@pytest.mark.parametrize("failure", [StoreUnavailable("store: as ordered"), ValueError("a bug")])
async def test_a_pair_that_the_store_does_not_take_goes_through_the_broker(bench: Bench, failure: Exception) -> None:
    """T-RT-DBFAIL: whatever it says, as of a broken file."""
    await bench.authorise()
    worker, other = bench.worker(), bench.worker()
    worker.grants.failures, worker.grants.failure = 1, failure
    await worker.refresher.refresh_if_due()
    assert (await bench.grant()).rt_version == 1
    assert len(bench.spool.messages) == 1
    for _ in range(2):  # delivered twice changes nothing
        await other.handler(bench.spool.deliveries())
    row = await bench.grant()
    assert (row.rt_version, row.state, row.lease_owner) == (2, "active", None)
    assert await bench.holds_live_pair()
    async with bench.running(other):  # its age is not known: it is only used to get the next one
        await renewed(bench, 3)
    assert bench.violations() == []


@pytest.mark.parametrize("refusal", [BrokerUnavailable("broker: as ordered"), ValueError("a bug")])
async def test_a_pair_is_held_until_store_or_broker_takes_it(bench: Bench, refusal: Exception) -> None:
    """T-RT-DBFAIL: both are away for a while, or say what nobody expects."""
    await bench.authorise()
    worker = bench.worker()
    worker.grants.failures, bench.spool.refusals, bench.spool.refusal = 2, 2, refusal
    await worker.refresher.refresh_if_due()
    assert (await bench.grant()).rt_version == 2
    assert bench.spool.messages == []
    assert await bench.holds_live_pair()


async def test_an_obsolete_pair_is_dropped(bench: Bench) -> None:
    """A pair that comes over the broker after its version has another successor."""
    await bench.authorise()
    worker = bench.worker()
    worker.grants.failures = 1
    await worker.refresher.refresh_if_due()
    newer = bench.issue_refresh_token()
    await bench.change(rt_version=2)
    before = await bench.grant()
    await worker.handler(bench.spool.deliveries())
    assert await bench.grant() == before
    assert newer


async def test_a_holder_that_slept_too_long_still_brings_its_pair(bench: Bench) -> None:
    """T-RT-PAUSE: meanwhile another has called for a person; the newer pair takes that back."""
    await bench.authorise()
    asleep, other = bench.worker(), bench.worker()
    asleep.client.let_go.clear()
    step = asyncio.create_task(asleep.refresher.refresh_if_due())
    await asleep.client.asked.wait()
    await bench.change(lease_until=timedelta(seconds=-1))
    await other.refresher.refresh_if_due()
    assert await bench.events() == ["needs_authorisation"]
    asleep.client.let_go.set()
    await step
    assert await bench.events() == ["needs_authorisation", "active"]
    assert (await bench.grant()).state == "active"
    assert await bench.holds_live_pair()


async def test_a_refusal_that_comes_too_late_says_nothing(bench: Bench) -> None:
    """A holder whose lease another has taken over must not call for a person."""
    await bench.authorise()
    asleep, other = bench.worker(), bench.worker()
    bench.order("token_used")
    asleep.client.let_go.clear()
    step = asyncio.create_task(asleep.refresher.refresh_if_due())
    await asleep.client.asked.wait()
    await bench.change(lease_until=timedelta(seconds=-1))
    await other.refresher.refresh_if_due()
    assert (await bench.grant()).rt_version == 2
    asleep.client.let_go.set()
    await step
    assert await bench.events() == []
    assert (await bench.grant()).state == "active"


async def test_after_a_crash_the_old_token_is_presented_again(bench: Bench) -> None:
    """T-KILL-RT: died with the lease taken; nobody acts before it has run out."""
    await bench.authorise()
    dead = bench.worker()
    assert await dead.grants.claim_refresh(await dead.grants.look()) is not None
    heir = bench.worker()
    await heir.refresher.refresh_if_due()
    assert bench.requests == []
    await bench.change(lease_until=timedelta(seconds=-1))
    await heir.refresher.refresh_if_due()
    assert bench.requests == ["issued"]
    assert (await bench.grant()).rt_version == 2


@pytest.fixture
async def heir(bench: Bench) -> AsyncIterator[Worker]:
    """It has the lease of one who left a pair on the broker and no word in the store, and waits a while."""
    await bench.authorise()
    gone, heir = bench.worker(), bench.worker(pace=Pace(poll=0.01, settle=1.0))
    gone.grants.failures = 1
    await gone.refresher.refresh_if_due()
    await bench.change(lease_until=timedelta(seconds=-1))
    left_by = (await bench.grant()).lease_owner
    async with bench.running(heir):
        await until(lambda: _is_anothers(bench, left_by), what="the lease")
        yield heir


async def _is_anothers(bench: Bench, owner: str) -> bool:
    return (await bench.grant()).lease_owner not in (None, owner)


async def test_a_pair_on_its_way_is_waited_for_also_by_a_worker_that_has_been_there_for_long(
    bench: Bench, heir: Worker
) -> None:
    """T-RT-DBFAIL: the store could be read all the time, and is written again when the lease is over."""
    await heir.handler(bench.spool.deliveries())
    assert (await bench.grant()).rt_version == 2
    await renewed(bench, 3)
    assert bench.requests == ["issued", "issued"]
    assert bench.violations() == []


async def test_what_is_left_unfinished_is_not_waited_for_long(bench: Bench, heir: Worker) -> None:
    """T-KILL-RT: no pair comes; the old token is the only one there is."""
    await until(bench.events, what="the call for a person")
    assert bench.requests == ["issued", "reused"]
    assert heir.client.asked.is_set()


@pytest.mark.parametrize("how", ["told to stop", "cancelled"])
async def test_who_ends_while_it_waits_presents_nothing(bench: Bench, how: str) -> None:
    """The next one waits as long."""
    await bench.authorise(intent="refresh", lease_owner="dead")
    await bench.change(lease_until=timedelta(seconds=-1))
    heir, stop = bench.worker(pace=Pace(poll=0.01, settle=30.0)), asyncio.Event()
    running = asyncio.create_task(heir.refresher.run(stop))
    await until(lambda: _is_anothers(bench, "dead"), what="the lease")
    if how == "cancelled":
        running.cancel()
    else:
        stop.set()
    async with within(10):
        await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled() == (how == "cancelled")
    assert bench.requests == []
    row = await bench.grant()
    assert (row.lease_owner, row.intent) == ("dead", "refresh")


async def test_a_lease_that_comes_after_the_end_was_told_is_given_back(bench: Bench) -> None:
    """A request would begin that there is no time to finish."""
    await bench.authorise()
    worker, stop = bench.worker(), asyncio.Event()
    slow = worker.refresher._store = HeldClaim(worker)
    running = asyncio.create_task(worker.refresher.run(stop))
    await slow.asked.wait()
    stop.set()
    for _ in range(5):
        await asyncio.sleep(0)
    slow.let_go.set()
    await running
    assert bench.requests == []
    row = await bench.grant()
    assert (row.lease_owner, row.rt_version) == (None, 1)


async def test_a_store_that_is_slow_is_not_waited_for_with_a_pair_in_hand(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-RT-DBFAIL, T-TERM-BUSY: what the store does not take at once goes to the broker, also in the time of a stop."""
    async with committing(bench, monkeypatch) as worker:
        pass
    await renewed(bench, 2)
    row = await bench.grant()
    assert row.expires_at - datetime.now(UTC) > timedelta(minutes=5), "it is used as long as it lives"
    await worker.handler(bench.spool.deliveries())
    assert await bench.grant() == row
    assert await bench.holds_live_pair()


async def test_a_commit_that_is_slow_is_left_to_others_at_the_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-TERM-BUSY: the pair is on the broker."""
    async with committing(bench, monkeypatch) as worker, within(5):
        assert worker.keeper._committing
        await worker.keeper.close()
        assert not worker.keeper._committing
    assert (await bench.grant()).rt_version == 1
    await worker.handler(bench.spool.deliveries())
    assert await bench.holds_live_pair()


@asynccontextmanager
async def committing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    """It has a pair on the broker, and commits it; somebody holds the row until the end of the block."""
    monkeypatch.setattr(keeping, "COMMIT_SECONDS", 0.1)
    monkeypatch.setattr(engine, "LOCK_SECONDS", 60.0)
    await bench.authorise()
    worker = bench.worker()
    worker.client.let_go.clear()
    async with bench.running(worker):
        await worker.client.asked.wait()
        async with bench.store.transaction() as transaction:
            await transaction.rows(table_of(GrantRow).select().with_for_update())
            worker.client.let_go.set()
            await until(lambda: bench.spool.messages, what="the pair on the broker")
            yield worker


async def test_a_commit_that_hangs_holds_up_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-RT-DBFAIL: one line to the store is dead, and the broker is away."""
    monkeypatch.setattr(keeping, "COMMIT_SECONDS", 0.1)
    await bench.authorise()
    worker = bench.worker()
    worker.grants.hangs, bench.spool.refusals = 1, 10**6
    async with within(10):
        await worker.refresher.refresh_if_due()
    assert (await bench.grant()).rt_version == 2
    assert await bench.holds_live_pair()
    await worker.keeper.close()


async def test_a_lifetime_counts_from_the_request_however_long_the_row_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter((0.0,))
    monkeypatch.setattr(token_store, "monotonic_seconds", lambda: next(moments, 7.0))
    await bench.authorise()
    await bench.worker().refresher.refresh_if_due()
    left = (await bench.grant()).expires_at - datetime.now(UTC)
    assert timedelta(minutes=9) < left < timedelta(minutes=10) - timedelta(seconds=6)


@pytest.mark.parametrize("is_stopping", [False, True])
async def test_a_request_under_way_is_not_cancelled_because_something_else_fails(
    bench: Bench, is_stopping: bool
) -> None:
    """What comes is the only pair."""
    await bench.authorise()
    worker, stop = bench.worker(), asyncio.Event()
    worker.client.let_go.clear()
    running = asyncio.create_task(worker.refresher.run(stop))
    await worker.client.asked.wait()
    if is_stopping:
        stop.set()
        for _ in range(5):
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.sleep(0)
    worker.client.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await bench.grant()).rt_version == 2


async def test_a_lease_that_aged_before_sending_is_given_back(bench: Bench) -> None:
    """The process was stopped between taking the lease and using it."""
    await bench.authorise()
    clock = Hands()
    worker = bench.worker(clock=clock)
    worker.refresher._store = SlowClaim(worker, clock)
    await worker.refresher.refresh_if_due()
    assert bench.requests == []
    assert (await bench.grant()).lease_owner is None
    worker.refresher._store = worker.grants
    await worker.refresher.refresh_if_due()
    assert bench.requests == ["issued"]


@pytest.mark.parametrize("jump", [timedelta(hours=-1), timedelta(hours=1)])
async def test_a_store_clock_that_jumps_neither_stops_renewing_nor_makes_a_loop_of_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, jump: timedelta
) -> None:
    """T-RT-CLOCK: whatever the store's clock says, a pair of ten minutes is renewed once in ten minutes."""
    await bench.authorise(due=False)
    clock = Hands()
    worker = bench.worker(clock=clock)

    async def renewals_at(moment: float) -> int:
        clock.moment = moment
        for _ in range(5):
            await worker.refresher.refresh_if_due()
        return len(bench.requests)

    assert await renewals_at(0.0) == 0
    real = Transaction.now

    async def jumped(self: Transaction) -> datetime:
        return await real(self) + jump

    monkeypatch.setattr(Transaction, "now", jumped)
    early = int(jump > timedelta(0))  # the old pair is due at once by a clock that was put forward
    assert await renewals_at(100.0) == early
    assert await renewals_at(210.0) == 1
    assert await renewals_at(640.0) == 2
    assert await renewals_at(900.0) == 2
    assert await bench.holds_live_pair()
    assert await bench.events() == []


async def test_a_pair_that_no_key_opens_stays_as_it_is(bench: Bench) -> None:
    """T-KEYROT: without the key the row is untouched; with it back, all goes on."""
    await bench.authorise()
    before = await bench.grant()
    await bench.worker(key=Fernet.generate_key().decode()).refresher.refresh_if_due()
    assert await bench.grant() == before
    assert bench.requests == []
    await bench.worker().refresher.refresh_if_due()
    assert bench.requests == ["issued"]


async def test_a_stop_lets_the_request_under_way_finish(bench: Bench) -> None:
    """T-TERM-BUSY"""
    await bench.authorise()
    bench.order("token_slow", seconds=0.3)
    async with bench.running(bench.worker()):
        await until(lambda: bench.requests == [""], what="the request")
    assert (await bench.grant()).rt_version == 2


async def test_a_stop_is_bounded(bench: Bench) -> None:
    """T-TERM-BUSY: an answer that does not come is given up."""
    await bench.authorise()
    worker = bench.worker(pace=Pace(poll=0.01, settle=0.0, last=0.1))
    worker.client.let_go.clear()
    async with bench.running(worker):
        await worker.client.asked.wait()
    assert (await bench.grant()).intent == "refresh"


@pytest.mark.parametrize("error", [StoreUnavailable("store: as ordered"), ValueError("a bug")])
async def test_the_loop_survives_a_store_that_is_away_and_a_bug_that_passes(bench: Bench, error: Exception) -> None:
    await bench.authorise()
    worker = bench.worker()
    away = worker.refresher._store = Away(worker, error)
    async with bench.running(worker):
        await renewed(bench, 2)
    assert away.left < 0, "it was met, and it passed"


class Hands:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.moment = 0.0

    def __call__(self) -> float:
        return self.moment


class SlowClaim(GrantStore):
    """Time goes by while the lease is taken."""

    def __init__(self, worker: Worker, clock: Hands) -> None:
        super().__init__(worker.grants._store)
        self._clock = clock

    async def claim_refresh(self, look: Look) -> Claim | None:
        claim = await super().claim_refresh(look)
        self._clock.moment += 11.0
        return claim


class HeldClaim(GrantStore):
    """The lease is taken only when `let_go` is set."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker.grants._store)
        self.asked, self.let_go = asyncio.Event(), asyncio.Event()

    async def claim_refresh(self, look: Look) -> Claim | None:
        self.asked.set()
        await self.let_go.wait()
        return await super().claim_refresh(look)


class Away(GrantStore):
    """Cannot be looked at for a while."""

    def __init__(self, worker: Worker, error: Exception) -> None:
        super().__init__(worker.grants._store)
        self._error = error
        self.left = 3

    async def look(self) -> Look:
        self.left -= 1
        if self.left >= 0:
            raise self._error
        return await super().look()
