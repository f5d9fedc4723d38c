"""Feeds and resyncs on both databases: heard by webhooks, read again for each reason once, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from common.ids import new_id
from common.settings import ResyncSettings
from common.store import targets as targets_module
from common.store.engine import Store
from common.store.targets import want_known
from schemas.messages import PlatformIds, WebhookReceived
from schemas.tables import ConnectionRow, FeedRow, TargetRow, table_of
from tests.waiting import until
from workers.fetch import resync as resync_module
from workers.fetch.rereading import NEVER, Terms
from workers.fetch.resync import Rereading
from workers.fetch.store import resyncs
from workers.fetch.store.marks import MarkStore
from workers.fetch.store.resyncs import ResyncStore

BASE = "https://api.syncaroo.com/v1/locations"
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
OFF = Terms(NEVER, NEVER, NEVER)
INTERVAL, BURST, SILENCE = Terms(HOUR, NEVER, NEVER), Terms(NEVER, MINUTE, NEVER), Terms(NEVER, NEVER, HOUR)

_feed, _target = table_of(FeedRow), table_of(TargetRow)


def webhook(connection_id: int = 99, item: int = 1, action: str | None = None) -> WebhookReceived:
    return WebhookReceived(
        delivery_id=new_id(),
        connection_id=connection_id,
        url=f"{BASE}/{connection_id}/resources/{item}",
        mapping=PlatformIds(),
        action=action,
        received_at=datetime.now(UTC),
    )


async def know(store: Store, connection_id: int = 99, **feed: Any) -> None:
    """A connection with three targets, which have been answered, and with such a feed."""
    await MarkStore(store).mark([webhook(connection_id, item) for item in (1, 2, 3)])
    async with store.transaction() as transaction:
        await transaction.execute(update(_target).values(answered=_target.c.wanted))
        if feed:
            await transaction.execute(update(_feed).where(_feed.c.connection_id == connection_id).values(feed))


def ago(time: timedelta) -> datetime:
    return datetime.now(UTC) - time


async def feed(store: Store, connection_id: int = 99) -> Any:
    async with store.reading() as transaction:
        return await transaction.row(_feed.select().where(_feed.c.connection_id == connection_id))


async def due(store: Store) -> list[tuple[int, str, int]]:
    """The targets that are wanted: connection, reason, priority."""
    query = _target.select().where(_target.c.wanted > _target.c.answered)
    async with store.reading() as transaction:
        rows = await transaction.rows(query)
    return sorted((row.connection_id, row.reason, row.priority) for row in rows)


async def targets(store: Store) -> list[Any]:
    async with store.reading() as transaction:
        return list(await transaction.rows(_target.select().order_by(_target.c.url)))


async def look(store: Store, terms: Terms) -> list[tuple[int, str]]:
    """What one process reads again in one look."""
    resyncs = ResyncStore(store)
    begun = [await resyncs.read_again(one, terms) for one in await resyncs.due(terms)]
    return [(one.connection_id, one.why) for one in begun if one is not None]


# --- heard ------------------------------------------------------------------------------------------------------------


async def test_a_batch_of_webhooks_is_heard_once_per_connection(store: Store) -> None:
    await MarkStore(store).mark([webhook(99), webhook(98), webhook(99, 2)])
    for connection_id in (98, 99):
        found = await feed(store, connection_id)
        assert ago(MINUTE) < found.heard_at <= datetime.now(UTC)
        assert (found.bursts, found.usual_quiet, found.first_read, found.resync_at) == (0, None, False, None)


async def test_a_webhook_after_quiet_begins_a_burst_and_ends_a_silence(store: Store) -> None:
    await know(store, heard_at=ago(2 * HOUR), bursts=7, usual_quiet=60.0, silent_since=ago(HOUR), resync_at=ago(-HOUR))
    before = await feed(store)
    await MarkStore(store).mark([webhook()])
    found = await feed(store)
    assert (found.bursts, found.usual_quiet, found.silent_since) == (8, pytest.approx(7200, abs=60), None)
    assert (found.resync_at, found.turn >= before.turn) == (before.resync_at, True)
    await MarkStore(store).mark([webhook()])
    assert (await feed(store)).bursts == 8


async def test_what_is_unmapped_was_heard_too(store: Store) -> None:
    assert await MarkStore(store).unmap(webhook(action="unmapped")) > 0
    assert (await feed(store)).heard_at is not None


async def test_batches_of_two_processes_hear_the_same_connections_together(store: Store, other: Store) -> None:
    there = [webhook(connection_id) for connection_id in range(1, 21)]
    batches = [MarkStore(one).mark(hooks) for one in (store, other) for hooks in (there, there[::-1])]
    await asyncio.gather(*batches)
    assert {(await feed(store, one)).bursts for one in range(1, 21)} == {0}


# --- due --------------------------------------------------------------------------------------------------------------


async def test_the_interval_is_planned_at_random_and_then_kept(store: Store) -> None:
    await know(store)
    assert await look(store, INTERVAL) == []
    first = (await feed(store)).resync_at
    assert ago(MINUTE) < first <= ago(-HOUR), "the first at a moment of the interval"
    assert await look(store, INTERVAL) == []

    await know(store, resync_at=ago(SECOND))
    assert await look(store, INTERVAL) == [(99, "interval")]
    assert {(99, "resync", 2), (99, "resync", 3)} == set(await due(store)), "collections and items"
    assert ago(-0.9 * HOUR) < (await feed(store)).resync_at < ago(-1.2 * HOUR)
    assert await look(store, INTERVAL) == []


async def test_a_plan_follows_the_settings(store: Store) -> None:
    await know(store, resync_at=ago(-100 * HOUR))
    assert await look(store, INTERVAL) == []
    assert (await feed(store)).resync_at <= ago(-HOUR)
    assert await look(store, OFF) == []
    assert (await feed(store)).resync_at is None
    assert await due(store) == []


async def test_a_first_burst_that_has_gone_quiet_is_read_again_once(store: Store) -> None:
    await know(store, heard_at=ago(30 * SECOND))
    assert await look(store, BURST) == []
    await know(store, heard_at=ago(2 * MINUTE))
    assert await look(store, BURST) == [(99, "first_burst")], "also without an interval"
    assert (await feed(store)).first_read
    assert await look(store, BURST) == []
    await know(store, heard_at=ago(2 * HOUR))
    assert await look(store, BURST) == []


async def test_a_silence_is_read_again_once_and_shown_until_it_ends(store: Store) -> None:
    usual: dict[str, Any] = {"bursts": 5, "usual_quiet": 1800.0, "first_read": True}
    await know(store, heard_at=ago(1.4 * HOUR), **usual)
    assert await look(store, SILENCE) == [], "three times the usual is more"
    await know(store, heard_at=ago(1.6 * HOUR), **usual | {"bursts": 4})
    assert await look(store, SILENCE) == [], "nobody knows yet what is usual"
    await know(store, heard_at=ago(1.6 * HOUR), **usual)
    assert await look(store, SILENCE) == [(99, "silence")]
    assert (await feed(store)).silent_since > ago(MINUTE)
    assert await look(store, SILENCE) == []
    assert (await feed(store)).silent_since is not None
    await MarkStore(store).mark([webhook()])
    assert (await feed(store)).silent_since is None


async def test_missed_webhooks_have_everything_read_again_once(store: Store) -> None:
    for connection_id in (97, 98, 99):
        await know(store, connection_id)
    await MarkStore(store).miss({98, 99, 96})
    await MarkStore(store).miss({99})
    assert await look(store, OFF) == [(96, "missed"), (98, "missed"), (99, "missed")], "whatever the settings"
    assert {connection_id for connection_id, *_ in await due(store)} == {98, 99}
    assert (await feed(store)).missed_at is None
    assert await look(store, OFF) == []


async def test_what_is_missed_while_one_marks_is_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await know(store)
    await MarkStore(store).miss({99})

    async def mark(*given: Any) -> int:
        found = await want_known(*given)
        await MarkStore(store).miss({99})
        return found

    with monkeypatch.context() as patched:
        patched.setattr(resyncs, "want_known", mark)
        assert await look(store, OFF) == [(99, "missed")]
    assert await look(store, OFF) == [(99, "missed")]
    assert await look(store, OFF) == []


async def test_a_revoked_connection_is_left_alone(store: Store) -> None:
    plans: dict[str, Any] = {"heard_at": ago(9 * HOUR), "bursts": 9, "usual_quiet": 60.0, "resync_at": ago(HOUR)}
    for connection_id, state in ((1, "revoked"), (2, "confirmed"), (3, "authorised"), (4, None)):
        await know(store, connection_id, **plans)
        if state is not None:
            values = {"connection_id": connection_id, "user_id": "1", "state": state, "created_at": ago(HOUR)}
            async with store.transaction() as transaction:
                await transaction.execute(table_of(ConnectionRow).insert().values(values))
    for terms in (INTERVAL, BURST, SILENCE):
        assert [connection_id for connection_id, _ in await look(store, terms)] == [2, 3, 4]


async def test_of_several_processes_one_reads_each_connection_again(store: Store, other: Store) -> None:
    for connection_id in range(1, 11):
        await know(store, connection_id, resync_at=ago(SECOND))
    begun = await asyncio.gather(*(look(one, INTERVAL) for one in (store, other, store)))
    assert sorted(one for looks in begun for one in looks) == [(one, "interval") for one in range(1, 11)]


async def test_while_one_marks_the_others_leave_the_connection_alone(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await know(store, resync_at=ago(SECOND))
    marked, looked = [], []

    async def mark(*given: Any) -> int:
        marked.append(given)
        looked.append(await look(other, INTERVAL))
        return await want_known(*given)

    monkeypatch.setattr(resyncs, "want_known", mark)
    assert await look(store, INTERVAL) == [(99, "interval")]
    assert (len(marked), looked) == (1, [[]])
    assert (await feed(store)).reading_until is None


async def test_a_webhook_while_one_marks_is_heard(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the silence, and the first burst is not over after all."""
    await know(store, heard_at=ago(9 * HOUR), bursts=9, usual_quiet=60.0)

    async def mark(*given: Any) -> int:
        await MarkStore(store).mark([webhook()])
        return await want_known(*given)

    monkeypatch.setattr(resyncs, "want_known", mark)
    assert await look(store, Terms(HOUR, MINUTE, HOUR)) == [(99, "silence")]
    found = await feed(store)
    assert (found.bursts, found.silent_since, found.first_read) == (10, None, False)
    assert (found.heard_at > ago(MINUTE), found.resync_at > ago(NEVER)) == (True, True)


async def test_who_dies_after_marking_leaves_the_rest_to_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumable: the plan moves after the marks, and what is marked already is not marked again."""
    plans: dict[str, Any] = {"heard_at": ago(9 * HOUR), "bursts": 9, "usual_quiet": 60.0, "resync_at": ago(HOUR)}
    await know(store, **plans)
    before = await feed(store)

    async def die(*given: Any) -> int:
        await want_known(*given)
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(resyncs, "want_known", die)
        with pytest.raises(asyncio.CancelledError):
            await look(store, Terms(HOUR, MINUTE, HOUR))
    died, marked = await feed(store), await targets(store)
    assert (died.resync_at, died.first_read, died.silent_since) == (before.resync_at, False, None)
    assert await look(store, Terms(HOUR, MINUTE, HOUR)) == [], "it may be alive"

    async with store.transaction() as transaction:
        await transaction.execute(update(_feed).values(reading_until=ago(SECOND)))
    assert await look(store, Terms(HOUR, MINUTE, HOUR)) == [(99, "silence")]
    after = await feed(store)
    assert (after.first_read, after.silent_since is not None, after.resync_at > ago(NEVER)) == (True, True, True)
    assert len(await due(store)) == 7, "three items, what is below each, and their collection"
    assert await targets(store) == marked
    assert await look(store, Terms(HOUR, MINUTE, HOUR)) == [], "one reading for all reasons"


# --- the loop ---------------------------------------------------------------------------------------------------------


async def test_who_dies_in_the_middle_of_marking_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Part by part: the next one marks what was left, and nothing twice."""
    await know(store, resync_at=ago(SECOND))
    monkeypatch.setattr(targets_module, "MARK_CHUNK", 2)
    marking, parts = targets_module.want, 0

    async def die(*given: Any) -> list[int]:
        nonlocal parts
        parts += 1
        if parts == 3:
            raise asyncio.CancelledError
        return await marking(*given)

    with monkeypatch.context() as patched:
        patched.setattr(targets_module, "want", die)
        with pytest.raises(asyncio.CancelledError):
            await look(store, INTERVAL)
    marked = {one.url: one.wanted for one in await targets(store) if one.wanted > one.answered}
    assert len(marked) == 4
    async with store.transaction() as transaction:
        await transaction.execute(update(_feed).values(reading_until=ago(SECOND)))

    assert await look(store, INTERVAL) == [(99, "interval")]
    again = {one.url: one.wanted for one in await targets(store) if one.wanted > one.answered}
    assert (len(again), again.items() >= marked.items()) == (7, True)


async def test_the_loop_says_which_connection_is_silent_and_wakes_the_claims(store: Store) -> None:
    await know(store, heard_at=ago(3 * HOUR), bursts=9, usual_quiet=1800.0, first_read=True)
    wake, stop, seconds = asyncio.Event(), asyncio.Event(), [0.0]
    settings = ResyncSettings(resync_interval=NEVER, burst_quiet=timedelta(milliseconds=50), silence_after=HOUR)
    with capture_logs() as logs:
        running = asyncio.create_task(Rereading(ResyncStore(store), settings, wake.set, lambda: seconds[0]).run(stop))
        await know(store, 98, resync_at=ago(SECOND))
        await until(lambda: _has_no_plan(store, 98))
        assert not wake.is_set(), "what waits in the queue is heard first"
        seconds[0] = 61.0
        await until(wake.is_set)
        await until(lambda: _was_read(store, 98))
        stop.set()
        await running
    told = [one for one in logs if one["event"] == "connection.silent"]
    assert [(one["connection_id"], one["usual_seconds"], one["log_level"]) for one in told] == [(99, 1800, "warning")]
    assert told[0]["quiet_seconds"] == pytest.approx(3 * 3600, abs=60)
    assert sorted(one["why"] for one in logs if one["event"] == "resync.begun") == ["first_burst", "silence"]


async def test_the_loop_looks_at_once_when_it_is_told_to_and_goes_on_until_nothing_is_due(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outages end for everybody at once: a look takes a part, and the next part comes without a pause."""
    monkeypatch.setattr(resyncs, "LOOK_BATCH", 2)
    monkeypatch.setattr(resync_module, "LOOK_BATCH", 2)
    monkeypatch.setattr(resync_module, "LOOK_SECONDS", 3600.0)
    everyone = set(range(1, 6))
    for connection_id in everyone:
        await know(store, connection_id)
    wake, stop = asyncio.Event(), asyncio.Event()
    rereading = Rereading(ResyncStore(store), ResyncSettings(burst_quiet=timedelta(0)), wake.set)
    running = asyncio.create_task(rereading.run(stop))  # by itself it looks again after minutes
    await until(lambda: _is_planned(store, 5))
    await MarkStore(store).miss(everyone)
    rereading.look()
    await until(lambda: _are_due(store, everyone), what="all, without a pause")
    stop.set()
    await running


async def _is_planned(store: Store, connection_id: int) -> bool:
    return not await _has_no_plan(store, connection_id)


async def _are_due(store: Store, connections: set[int]) -> bool:
    return {connection_id for connection_id, *_ in await due(store)} == connections


async def _has_no_plan(store: Store, connection_id: int) -> bool:
    return (await feed(store, connection_id)).resync_at is None


async def _was_read(store: Store, connection_id: int) -> bool:
    return bool((await feed(store, connection_id)).first_read)
