"""workers.relay on both databases: what is read, what is published how often, and what a single bad event holds up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import pytest
from sqlalchemy import delete

from common.broker.broadcast import Heard, NotInLog
from common.broker.outgoing import Outgoing
from common.clock import monotonic_seconds, utc_now
from common.errors import BrokerUnavailable, StoreUnavailable
from common.process import BUGS_A_MINUTE
from common.store.engine import Store
from common.store.events import append_events
from common.store.leader import Leadership
from schemas.events import ConnectionChanged, EventData, GrantChanged, ListingChanged
from schemas.tables import ErasureRow, EventRow, table_of
from tests.component.conftest import StandBy
from tests.fixtures.database import ON_POSTGRESQL
from tests.waiting import until, within
from workers.relay import handler
from workers.relay.handler import Parts, Relay
from workers.relay.metrics import Lag
from workers.relay.rules import PendingEvent, Window, order_key
from workers.relay.store.events import EventStore
from workers.relay.store.past import PastStore, Wanted

_event = table_of(EventRow)
_erasure = table_of(ErasureRow)


def listing_changed(name: str, version: int) -> ListingChanged:
    return ListingChanged(
        listing_id=name, connection_id=99, attribute_type="rates", item_id=name, location_id=None, resource_id=None,
        resource_type=None, change="created", reason="webhook", version=version, changed_fields=[], patch=[],
        previous=None, current={"ID": name}, delivery_id=None, fetched_at=utc_now(),
    )  # fmt: skip


def confirmed(connection_id: int, user_id: str = "1") -> ConnectionChanged:
    return ConnectionChanged(connection_id=connection_id, user_id=user_id, state="confirmed")


async def add(store: Store, *told: EventData) -> None:
    async with store.transaction() as transaction:
        await append_events(transaction, told)


async def waiting(store: Store, limit: int = 100, passing_by: Collection[str] = ()) -> list[PendingEvent]:
    """What is not published, with its data."""
    rows = EventStore(store)
    return await rows.events_at([one.position for one in await rows.oldest(limit, passing_by)])


async def subjects(store: Store, limit: int = 100, passing_by: Collection[str] = ()) -> list[str]:
    return [event.subject for event in await waiting(store, limit, passing_by)]


async def test_the_oldest_come_in_order_without_the_lanes_that_are_passed_by(store: Store) -> None:
    await add(store, *map(confirmed, range(1, 6)))
    await add(store, GrantChanged(state="active"), listing_changed("l", 1), listing_changed("m", 1))
    assert await subjects(store, 2) == ["1", "2"]
    assert await subjects(store) == ["1", "2", "3", "4", "5", "grant", "99/rates/l", "99/rates/m"]
    passed_by = {"connection.changed 2", "grant.changed grant", "l"}
    assert await subjects(store, passing_by=passed_by) == ["1", "3", "4", "5", "99/rates/m"]
    _, second, *_ = await waiting(store)
    await EventStore(store).published([second])
    assert await subjects(store, 3) == ["1", "3", "4"]


async def test_a_row_says_its_lane_and_size_as_the_rules_do(store: Store) -> None:
    await add(store, confirmed(1), GrantChanged(state="active"), listing_changed("l", 1))
    rows, events = await EventStore(store).oldest(10), await waiting(store)
    assert [row.lane for row in rows] == [order_key(event) for event in events]
    assert [row.size for row in rows] == [len(event.data) for event in events]
    assert [row.event_id for row in rows] == [event.event_id for event in events]


@ON_POSTGRESQL
async def test_what_commits_late_is_not_skipped(store: Store, other: Store) -> None:
    """T-OUT-GAP: the lower number commits after the higher one is out. SQLite has one writer at a time."""
    async with other.transaction() as late:
        await append_events(late, [confirmed(1)])
        await add(store, confirmed(2))
        (early,) = await waiting(store)
        await EventStore(store).published([early])
    assert (early.subject, await subjects(store)) == ("2", ["1"])


async def test_what_waits_and_what_is_replayed_keep_the_schema_version_of_their_day(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    today, other = GrantChanged.SCHEMA_VERSION, ConnectionChanged.SCHEMA_VERSION
    await add(store, GrantChanged(state="active"))
    monkeypatch.setattr(GrantChanged, "SCHEMA_VERSION", today + 1)
    await add(store, GrantChanged(state="needs_authorisation"), confirmed(1))
    rows = await waiting(store)
    assert [(one.subject, one.schema_version) for one in rows] == [
        ("grant", today), ("grant", today + 1), ("1", other),
    ]  # fmt: skip
    past = PastStore(store)
    assert [told.event for told in await past.page(Wanted(rows[0].created_at), -1, 10**6)] == rows


@dataclass
class FakeBroadcast:
    """Hears events, those that `trouble` raises for excepted; nothing may be under way twice."""

    trouble: Callable[[str], None] = lambda event_id: None
    heard: list[str] = field(default_factory=list)
    under_way: set[str] = field(default_factory=set)
    logged: list[str] = field(default_factory=list)

    async def publish(self, message: Outgoing) -> Heard:
        event_id = str(message.message_id)
        assert event_id not in self.under_way
        self.under_way.add(event_id)
        await asyncio.sleep(0)
        self.under_way.discard(event_id)
        self.trouble(event_id)
        self.heard.append(event_id)
        return Heard.BY_ALL

    async def publish_to_log(self, message: Outgoing) -> Heard:
        event_id = str(message.message_id)
        self.logged.append(event_id)
        return Heard.BY_THE_LOG_ALONE


@asynccontextmanager
async def relaying(store: EventStore, leadership: Leadership, broadcast: FakeBroadcast) -> AsyncIterator[Parts]:
    parts, stop = Parts(store, broadcast, leadership, "https://yourapp.test"), asyncio.Event()
    running = asyncio.create_task(Relay(parts).run(stop))
    try:
        yield parts
    finally:
        stop.set()
        await running


async def test_a_lane_that_cannot_go_on_or_goes_slowly_holds_up_no_other(store: Store) -> None:
    """More of it than the window holds: the others are found behind it, what comes later, too."""
    await add(store, *[confirmed(1)] * 2500, confirmed(2))
    bad = (await waiting(store, 1))[0]
    broken = set[str]()

    def trouble(event_id: str) -> None:
        if event_id == bad.event_id:
            broken.add(event_id)
            raise ValueError("a bug")

    broadcast = FakeBroadcast(trouble)
    async with relaying(EventStore(store), Leadership(store, "relay"), broadcast):
        await until(lambda: len(broadcast.heard) == 1, what="the one behind them")
        await add(store, confirmed(3))
        await until(lambda: len(broadcast.heard) == 2, what="the one that came later")
    assert broken


async def test_a_long_lane_is_read_on_as_soon_as_it_has_room(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay looks by itself every hour: only that the lane has drained can have told."""
    monkeypatch.setattr(handler, "POLL_SECONDS", 3600.0)
    await add(store, *[confirmed(1)] * 1500, *map(confirmed, range(2, 12)))
    order = [event.event_id for event in await waiting(store, 1500)]
    broadcast = FakeBroadcast()
    async with relaying(EventStore(store), Leadership(store, "relay"), broadcast):
        await until(lambda: _is_left(store, []), 60)
    assert [one for one in broadcast.heard if one in order] == order
    assert len(broadcast.heard) == 1510


async def test_a_relay_that_waits_for_the_broker_is_not_kept_busy_by_pokes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its window is full, and nothing can leave: a turn for each poke and each second at most."""
    await add(store, *map(confirmed, range(1, 2500)))
    turns = 0

    class Counting(Window):
        @property
        def is_full(self) -> bool:
            nonlocal turns
            turns += 1
            return super().is_full

    def trouble(event_id: str) -> None:
        raise BrokerUnavailable("broker: as ordered")

    monkeypatch.setattr(handler, "Window", Counting)
    broadcast = FakeBroadcast(trouble)
    async with relaying(EventStore(store), Leadership(store, "relay"), broadcast) as parts:
        await until(lambda: turns > 0)
        for _ in range(5):
            before = turns
            parts.signal.poke()
            await until(lambda before=before: turns > before)  # type: ignore[misc]  # mypy infers no lambda with a default
    assert turns < 400


async def test_what_is_erased_while_the_broker_is_away_never_leaves(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay holds it, has tried to publish it, and waits for the broker."""
    ahead, away = 0.0, True
    monkeypatch.setattr(handler, "AWAY_SECONDS", 3600.0)
    monkeypatch.setattr(handler, "monotonic_seconds", lambda: monotonic_seconds() + ahead)
    await add(store, listing_changed("l", 1), confirmed(2))
    (erased, _) = await waiting(store)
    tried = set[str]()

    def trouble(event_id: str) -> None:
        tried.add(event_id)
        if away:
            raise BrokerUnavailable("broker: as ordered")

    broadcast = FakeBroadcast(trouble)
    async with relaying(EventStore(store), Leadership(store, "relay"), broadcast) as parts:
        await until(lambda: len(tried) == 2)
        async with store.transaction() as transaction:
            await transaction.execute(delete(_event).where(_event.c.event_id == erased.event_id))
        ahead, away = 4000.0, False
        parts.signal.poke()
        await until(lambda: _is_left(store, []))
    assert broadcast.heard
    assert erased.event_id not in broadcast.heard


async def test_what_is_still_to_be_erased_does_not_leave_but_for_the_end_of_the_connection(store: Store) -> None:
    await add(store, listing_changed("l", 1), confirmed(99))
    async with store.transaction() as transaction:
        await transaction.execute(_erasure.insert().values(connection_id=99, since=await transaction.now()))
    assert await subjects(store) == ["99"]


async def test_what_only_the_log_lacks_is_not_given_to_all_again(store: Store) -> None:
    await add(store, confirmed(1))
    asked: list[str] = []

    def trouble(event_id: str) -> None:
        asked.append(event_id)
        raise NotInLog("broker: as ordered")

    broadcast = FakeBroadcast(trouble)
    async with relaying(EventStore(store), Leadership(store, "relay"), broadcast):
        await until(lambda: _is_left(store, []))
    assert len(asked) == len(broadcast.logged) == 1


async def test_a_bug_in_marking_that_passes_is_survived(store: Store) -> None:
    await add(store, confirmed(1))
    rows, broadcast = Forgetful(store, failures=1, error=ValueError), FakeBroadcast()
    async with relaying(rows, Leadership(store, "relay"), broadcast):
        await until(lambda: _is_left(store, []))
    assert len(broadcast.heard) == 1, "marked at the end of the term"


async def test_a_bug_in_marking_that_is_only_repeated_ends_the_process(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unlike the store's trouble: nobody would know."""
    monkeypatch.setattr(handler, "AWAY_SECONDS", 0.01)
    await add(store, confirmed(1))
    rows = Forgetful(store, failures=1000, error=ValueError)
    with pytest.raises(ValueError, match="as ordered"):
        async with within(10):
            await Relay(Parts(rows, FakeBroadcast(), Leadership(store, "relay"), "s")).run(asyncio.Event())
    assert 1000 - rows.failures > BUGS_A_MINUTE


async def test_what_was_passed_by_is_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nobody else ever leads."""
    monkeypatch.setattr(handler, "PASSED_BY_SECONDS", 0.1)
    await add(store, confirmed(1))
    times = count()

    def trouble(_: str) -> None:
        if next(times) < 2:
            raise ValueError("a bug")

    async with relaying(EventStore(store), Leadership(store, "relay"), FakeBroadcast(trouble)):
        await until(lambda: _is_left(store, []))


async def test_one_event_that_cannot_be_published_holds_up_its_listing_alone(store: Store) -> None:
    await add(store, *map(confirmed, (1, 2, 3)), confirmed(2), *map(confirmed, (3, 1)))
    bad = (await waiting(store))[1]

    def trouble(event_id: str) -> None:
        if event_id == bad.event_id:
            raise ValueError("a bug")

    broadcast = FakeBroadcast(trouble)
    async with relaying(EventStore(store), Leadership(store, "relay"), broadcast):
        await until(lambda: _is_left(store, ["connection.changed 2"] * 2))
    assert len(broadcast.heard) == 4


async def _is_left(store: Store, expected: list[str]) -> bool:
    """Lanes of what is not published: one look, as the relay is at work meanwhile."""
    return [one.lane for one in await EventStore(store).oldest(100)] == expected


class Forgetful(EventStore):
    """A store that cannot write for a while."""

    def __init__(self, store: Store, failures: int, error: type[Exception] = StoreUnavailable) -> None:
        super().__init__(store)
        self.failures = failures
        self.error = error

    async def published(self, events: Sequence[PendingEvent]) -> list[Lag]:
        if self.failures:
            self.failures -= 1
            raise self.error("as ordered")
        return await super().published(events)


async def test_what_cannot_be_marked_is_not_published_again(store: Store) -> None:
    await add(store, *map(confirmed, range(1, 300)))
    broadcast = FakeBroadcast()
    async with relaying(Forgetful(store, 2), Leadership(store, "relay"), broadcast):
        await until(lambda: _is_left(store, []))
    assert len(broadcast.heard) == len(set(broadcast.heard)) == 299


async def test_what_was_not_confirmed_is_published_again_before_its_successor(store: Store) -> None:
    await add(store, *[confirmed(1)] * 20)
    order = [event.event_id for event in await waiting(store)]
    failing = {order[0], order[7]}

    def trouble(event_id: str) -> None:
        if event_id in failing:
            failing.discard(event_id)
            raise BrokerUnavailable("broker: as ordered")

    broadcast = FakeBroadcast(trouble)
    async with relaying(EventStore(store), Leadership(store, "relay"), broadcast):
        await until(lambda: _is_left(store, []))
    assert broadcast.heard == order


async def test_a_poke_is_enough(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks by itself every hour."""
    monkeypatch.setattr(handler, "POLL_SECONDS", 3600.0)
    broadcast = FakeBroadcast()
    async with relaying(EventStore(store), Leadership(store, "relay"), broadcast) as parts:
        for number in range(1, 12):
            await add(store, confirmed(number))
            parts.signal.poke()
            await until(lambda number=number: len(broadcast.heard) == number)  # type: ignore[misc]  # mypy infers no lambda with a default


async def test_who_stands_by_publishes_nothing(store: Store, other: Store) -> None:
    """It has asked twice whether it leads, so it has had its chance."""
    standby = StandBy(store, "relay")
    leading = Leadership(other, "relay")
    assert await leading.held()
    await add(store, confirmed(1))
    broadcast = FakeBroadcast()
    async with relaying(EventStore(store), standby, broadcast):
        await until(lambda: standby.asked >= 3)
        assert await subjects(store) == ["1"]
        assert not broadcast.heard
        await leading.release()
        await until(lambda: _is_left(store, []))
    assert len(broadcast.heard) == 1
