"""Connections that were refused, or found nobody: written down behind the webhooks' back, resynced, each once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import update
from structlog.testing import capture_logs

from common.store.engine import Store
from common.store.targets import Wanted, want
from ingress.outages import refused as refused_module
from ingress.outages.heartbeat import Heartbeat
from ingress.outages.refused import LIMIT, Refused
from ingress.outages.store import OutageStore
from ingress.webhook.metrics import WebhookMetrics
from schemas.messages import PlatformIds, ResyncWanted
from schemas.tables import BeatRow, ConnectionRow, RefusedRow, table_of
from tests.ingress_app import FakeBroker
from tests.waiting import until

MINUTE = timedelta(minutes=1)

_beat, _refused = table_of(BeatRow), table_of(RefusedRow)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_module, "PAUSE_SECONDS", 0.02)


class Ingress:
    """What one process remembers of refusals, with a broker and a store that can be away."""

    def __init__(self, store: Store, *, limit: int = LIMIT) -> None:
        self.broker = FakeBroker()
        self.store_is_up = True
        self.registry = CollectorRegistry()
        gauge = WebhookMetrics(self.registry).refused_connections
        self.refused = Refused(self.broker, OutageStore(store), lambda: self.store_is_up, gauge, limit=limit)

    def resynced(self) -> list[int]:
        """The connections whose resync the broker has confirmed."""
        messages = [message for _, message in self.broker.messages()]
        assert all(isinstance(message, ResyncWanted) for message in messages)
        return sorted(message.connection_id for message in messages)  # type: ignore[attr-defined]  # all of these kinds have it

    @asynccontextmanager
    async def running(self, *, dies: bool = False) -> AsyncIterator[None]:
        """Until the end of the block: in good order, or as kill -9 ends it."""
        stop = asyncio.Event()
        task = asyncio.create_task(self.refused.run(stop))
        try:
            yield
        finally:
            if dies:
                task.cancel()
            stop.set()
            await asyncio.gather(task, return_exceptions=dies)


async def rows(store: Store) -> list[int]:
    async with store.reading() as transaction:
        return sorted(row.connection_id for row in await transaction.rows(_refused.select()))


async def know(store: Store, *connections: int) -> None:
    url = "https://api.syncaroo.com/v1/locations/1"
    async with store.transaction() as transaction:
        await want(transaction, [Wanted(one, url, PlatformIds(), "webhook") for one in connections])


async def revoke(store: Store, connection_id: int) -> None:
    values = {"connection_id": connection_id, "user_id": "1", "state": "revoked", "created_at": datetime.now(UTC)}
    async with store.transaction() as transaction:
        await transaction.execute(table_of(ConnectionRow).insert().values(values))


async def are_kept(store: Store, *connections: int) -> bool:
    return await rows(store) == sorted(connections)


# --- refused ----------------------------------------------------------------------------------------------------------


async def test_what_was_refused_before_a_kill_is_resynced_after_the_restart(store: Store) -> None:
    dying = Ingress(store)
    dying.broker.down = True
    async with dying.running(dies=True):
        for connection_id in (7, 8, 7):
            dying.refused.add(connection_id)
        await until(lambda: are_kept(store, 7, 8), what="both are written down")

    next_one = Ingress(store)
    next_one.broker.down = True
    async with next_one.running():
        await until(lambda: len(next_one.refused) == 2, what="they are taken over")
        assert await rows(store) == [7, 8], "until the broker has confirmed"
        next_one.broker.down = False
        await until(lambda: are_kept(store), what="nothing is left")
    assert next_one.resynced() == [7, 8]


async def test_many_are_written_down_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_module, "BATCH", 3)
    ingress = Ingress(store)
    ingress.broker.down = True
    everyone = list(range(1, 11))
    async with ingress.running():
        for connection_id in everyone:
            ingress.refused.add(connection_id)
        await until(lambda: are_kept(store, *everyone))
        ingress.broker.down = False
        await until(lambda: are_kept(store))
    assert ingress.resynced() == everyone


async def test_without_the_store_memory_does(store: Store) -> None:
    ingress = Ingress(store)
    ingress.broker.down, ingress.store_is_up = True, False
    async with ingress.running():
        ingress.refused.add(7)
        await until(lambda: len(ingress.broker.asked) > 2)
        ingress.broker.down = False
        await until(lambda: ingress.resynced() == [7])
    assert await rows(store) == []


async def test_a_row_stays_while_its_resync_waits_for_the_confirm(store: Store) -> None:
    ingress = Ingress(store)
    ingress.broker.down = True
    async with ingress.running(dies=True):
        ingress.refused.add(7)
        await until(lambda: are_kept(store, 7))
        ingress.broker.confirm.clear()
        ingress.broker.down = False
        await until(lambda: ingress.broker.waiting == 1)
        ingress.refused.add(8)
        await until(lambda: are_kept(store, 7, 8), what="a round of writing down")
    assert ingress.resynced() == []
    assert await rows(store) == [7, 8]


async def test_a_refusal_during_the_resync_counts_anew(store: Store) -> None:
    ingress = Ingress(store)
    async with ingress.running():
        ingress.broker.confirm.clear()
        ingress.refused.add(7)
        await until(lambda: ingress.broker.waiting == 1)
        ingress.refused.add(7)
        ingress.broker.confirm.set()
        await until(lambda: ingress.resynced() == [7, 7])
        await until(lambda: are_kept(store))


async def test_who_was_refused_again_elsewhere_keeps_its_row(store: Store) -> None:
    outages = OutageStore(store)
    first = await outages.keep([7, 8])
    again = await outages.keep([7])
    await outages.drop({7: first, 8: first})
    assert await rows(store) == [7]
    await outages.drop({7: again})
    assert await rows(store) == []


async def test_what_is_left_behind_is_taken_over_by_one(store: Store) -> None:
    await OutageStore(store).keep(range(1, 51))
    ingresses = [Ingress(store) for _ in range(3)]
    async with ingresses[0].running(), ingresses[1].running(), ingresses[2].running():
        await until(lambda: are_kept(store))
    assert sorted(one for ingress in ingresses for one in ingress.resynced()) == list(range(1, 51))


async def test_what_a_dying_one_took_over_is_taken_over_after_its_lease(store: Store) -> None:
    outages = OutageStore(store)
    await outages.keep([7])
    assert set(await outages.adopt(10)) == {7}
    assert await outages.adopt(10) == {}
    async with store.transaction() as transaction:
        passed = datetime.now(UTC) - timedelta(seconds=1)
        await transaction.execute(update(_refused).values(lease_until=passed))
    assert set(await outages.adopt(10)) == {7}


async def test_beyond_the_bound_it_is_everyone_who_is_resynced(store: Store) -> None:
    await know(store, *range(1, 21))
    await revoke(store, 13)
    ingress = Ingress(store, limit=3)
    ingress.broker.down, ingress.store_is_up = True, False
    async with ingress.running():
        with capture_logs() as logs:
            for connection_id in (1, 2, 2, 3, 4, 5, 1):
                ingress.refused.add(connection_id)
        assert [one["event"] for one in logs] == ["refused.overflow"]
        assert len(ingress.refused) == 3
        assert ingress.registry.get_sample_value("gateway_refused_connections") == 3
        ingress.store_is_up = True
        everyone = [one for one in range(1, 21) if one != 13]
        await until(lambda: are_kept(store, *everyone))
        ingress.broker.down = False
        await until(lambda: are_kept(store))
    assert ingress.resynced() == sorted(everyone)


async def test_at_the_end_there_is_one_more_chance_and_then_the_row(store: Store) -> None:
    ingress = Ingress(store)
    stop = asyncio.Event()
    stop.set()
    ingress.refused.add(7)
    await ingress.refused.run(stop)
    assert (ingress.resynced(), await rows(store)) == ([7], [])

    ingress.broker.down = True
    ingress.refused.add(8)
    with capture_logs() as logs:
        await ingress.refused.run(stop)
    assert await rows(store) == [8]
    assert "refused.forgotten" not in [one["event"] for one in logs]

    await Ingress(store).refused.run(stop)
    assert set(await OutageStore(store).adopt(10)) == {8}, "who ends takes over nothing"

    ingress.store_is_up = False
    ingress.refused.add(9)
    with capture_logs() as logs:
        await ingress.refused.run(stop)
    assert [one["connections"] for one in logs if one["event"] == "refused.forgotten"] == [[9]]


# --- the heartbeat ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def beating(
    store: Store, seconds: list[float] | None = None, is_up: Callable[[], bool] = lambda: True
) -> AsyncIterator[Any]:
    """An ingress' heartbeat, quick; `seconds` is its clock, `is_up` whether it thinks that the store is there."""
    stop, clock = asyncio.Event(), seconds or [0.0]
    beats = Heartbeat(OutageStore(store), is_up, lambda: clock[0], tick_seconds=0.01, beat_seconds=0.01)
    task = asyncio.create_task(beats.run(stop))
    try:
        yield beats
    finally:
        stop.set()
        await task


async def last_beat(store: Store) -> datetime | None:
    async with store.reading() as transaction:
        row = await transaction.row(_beat.select())
    return None if row is None else row.at


async def beat_was(store: Store, ago: timedelta) -> datetime:
    """The last beat was so long ago."""
    at = datetime.now(UTC) - ago
    async with store.transaction() as transaction:
        await transaction.execute(update(_beat).values(at=at))
    return at


async def beats_again(store: Store, after: datetime) -> bool:
    found = await last_beat(store)
    return found is not None and found > after + MINUTE / 2


async def test_a_first_start_resyncs_nobody(store: Store) -> None:
    await know(store, 1, 2)
    async with beating(store):
        await until(lambda: last_beat(store))
    assert await rows(store) == []


@pytest.mark.parametrize(("ago", "resynced"), [(5 * MINUTE, [1, 2]), (MINUTE * 0.8, [])])
async def test_a_start_after_more_than_a_minute_without_any_ingress_resyncs_everyone(
    store: Store, ago: timedelta, resynced: list[int]
) -> None:
    """A rolling restart is shorter."""
    await know(store, 1, 2, 3)
    await revoke(store, 3)
    await OutageStore(store).beat(timedelta(0))
    before = await beat_was(store, ago)
    with capture_logs() as logs:
        async with beating(store), beating(store):
            await until(lambda: beats_again(store, before))
    assert await rows(store) == resynced
    told = [(one["connections"], one["log_level"]) for one in logs if one["event"] == "ingress.was_away"]
    assert told == ([(2, "warning")] if resynced else []), "by one of the two"


async def test_a_process_that_was_stopped_was_away(store: Store) -> None:
    """SIGSTOP, or a machine that was paused: its clock jumps, or stood still; five minutes served count as two seconds
    or none.
    """
    await know(store, 1)
    for jump in (300.0, 0.0):
        clock = [0.0]
        async with beating(store, clock):
            await until(lambda: last_beat(store))
            before = await beat_was(store, 5 * MINUTE)
            clock[0] += jump
            await until(lambda before=before: beats_again(store, before))  # type: ignore[misc]  # mypy infers no lambda with a default
            await until(lambda: are_kept(store, 1))
        await OutageStore(store).drop({1: datetime.now(UTC) + MINUTE})


async def test_an_outage_of_the_store_is_none_of_the_ingress(store: Store) -> None:
    """It took webhooks all the time."""
    await know(store, 1)
    clock, up, noticed = [0.0], [True], asyncio.Event()

    def is_up() -> bool:
        if not up[0]:
            noticed.set()
        return up[0]

    async with beating(store, clock, is_up) as beats:
        await until(lambda: last_beat(store))
        up[0] = False

        def served(seconds: float) -> bool:
            clock[0] += 1.5
            return bool(beats._served > seconds)

        await until(noticed.is_set)  # it asks before each beat, so the last one is over
        before = await beat_was(store, 1.5 * MINUTE)
        await until(lambda: served(90), pace=0.02)
        up[0] = True
        await until(lambda: beats_again(store, before))
    assert await rows(store) == []


async def test_a_beat_that_is_not_committed_writes_nobody_down(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both or nothing: whoever dies between leaves it to the next."""
    from ingress.outages import store as store_module

    await know(store, 1)
    outages = OutageStore(store)
    await outages.beat(timedelta(0))
    before = await beat_was(store, 5 * MINUTE)
    keep = store_module._keep_everyone

    async def die(*given: Any) -> int:
        await keep(*given)
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(store_module, "_keep_everyone", die)
        with pytest.raises(asyncio.CancelledError):
            await outages.beat(timedelta(0))
    assert (await rows(store), await last_beat(store)) == ([], before)
    missed = await outages.beat(timedelta(0))
    assert (missed and missed.connections, await rows(store)) == (1, [1])
