"""workers.relay on both databases: what is read, what is published how often, and what a single bad event holds up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from common.broker.broadcast import Heard
from common.broker.publisher import Outgoing
from common.errors import BrokerUnavailable, StoreUnavailable
from common.ids import new_id
from common.store.engine import Store
from common.store.events import append_events
from common.store.leader import Leadership
from schemas.events import ConnectionChanged, GrantChanged
from tests.waiting import until
from workers.relay import handler
from workers.relay.handler import Relay
from workers.relay.rules import PendingEvent
from workers.relay.store import events
from workers.relay.store.events import EventStore


def confirmed(connection_id: int, user_id: str = "1") -> ConnectionChanged:
    return ConnectionChanged(connection_id=connection_id, user_id=user_id, state="confirmed")


async def add(store: Store, *told: ConnectionChanged | GrantChanged) -> None:
    async with store.transaction() as transaction:
        await append_events(transaction, told)


async def subjects(store: Store, limit: int = 100) -> list[str]:
    return [event.subject for event in await EventStore(store).pending((), limit)]


async def test_the_oldest_that_are_not_held_already_come_in_order(store: Store) -> None:
    await add(store, *map(confirmed, range(1, 6)))
    await add(store, GrantChanged(state="active"))
    assert await subjects(store) == ["1", "2", "3", "4", "5", "grant"]
    first, second, *_ = await EventStore(store).pending((), 2)
    assert (first.subject, second.subject) == ("1", "2")
    assert [one.subject for one in await EventStore(store).pending({first.event_id}, 3)] == ["2", "3"]
    await EventStore(store).published([second])
    assert await subjects(store) == ["1", "3", "4", "5", "grant"]


async def test_only_so_much_is_read_at_once_and_one_at_least(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await add(store, *[confirmed(number, "u" * 1000) for number in range(1, 6)])
    monkeypatch.setattr(events, "MOST_BYTES", 2500)
    assert await subjects(store) == ["1", "2"]
    monkeypatch.setattr(events, "MOST_BYTES", 10)
    assert await subjects(store) == ["1"]


async def test_what_commits_late_is_not_skipped(store: Store, other: Store) -> None:
    """T-OUT-GAP: the lower number commits after the higher one is out."""
    if not store.postgres:
        pytest.skip("SQLite has one writer at a time")
    async with other.transaction() as late:
        await append_events(late, [confirmed(1)])
        await add(store, confirmed(2))
        (early,) = await EventStore(store).pending((), 10)
        await EventStore(store).published([early])
    assert (early.subject, await subjects(store)) == ("2", ["1"])


@dataclass
class FakeBroadcast:
    """Hears events, those that `trouble` raises for excepted; nothing may be under way twice."""

    trouble: Callable[[str], None] = lambda event_id: None
    heard: list[str] = field(default_factory=list)
    under_way: set[str] = field(default_factory=set)

    async def publish(self, message: Outgoing) -> Heard:
        event_id = str(message.properties["message_id"])
        assert event_id not in self.under_way
        self.under_way.add(event_id)
        await asyncio.sleep(0)
        self.under_way.discard(event_id)
        self.trouble(event_id)
        self.heard.append(event_id)
        return Heard.BY_ALL


@asynccontextmanager
async def relaying(store: EventStore, leadership: Leadership, broadcast: FakeBroadcast) -> AsyncIterator[Relay]:
    relay, stop = Relay(store, broadcast, leadership, "https://yourapp.test"), asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    try:
        yield relay
    finally:
        stop.set()
        await running


async def test_one_event_that_cannot_be_published_holds_up_its_listing_alone(store: Store) -> None:
    await add(store, *map(confirmed, (1, 2, 3)), confirmed(2), *map(confirmed, (3, 1)))
    bad = (await EventStore(store).pending((), 10))[1]

    def trouble(event_id: str) -> None:
        if event_id == bad.event_id:
            raise ValueError("a bug")

    broadcast = FakeBroadcast(trouble)
    async with relaying(EventStore(store), Leadership(store, "relay"), broadcast):
        await until(lambda: _is_left(store, ["2", "2"]))
    assert len(broadcast.heard) == 4


async def _is_left(store: Store, expected: list[str]) -> bool:
    return await subjects(store) == expected


class Forgetful(EventStore):
    """A store that cannot write for a while."""

    def __init__(self, store: Store, failures: int) -> None:
        super().__init__(store)
        self.failures = failures

    async def published(self, events: Sequence[PendingEvent]) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("store: as ordered")
        await super().published(events)


async def test_what_cannot_be_marked_is_not_published_again(store: Store) -> None:
    await add(store, *map(confirmed, range(1, 300)))
    broadcast = FakeBroadcast()
    async with relaying(Forgetful(store, 2), Leadership(store, "relay"), broadcast):
        await until(lambda: _is_left(store, []))
    assert len(broadcast.heard) == len(set(broadcast.heard)) == 299


async def test_what_was_not_confirmed_is_published_again_before_its_successor(store: Store) -> None:
    await add(store, *[confirmed(1)] * 20)
    order = [event.event_id for event in await EventStore(store).pending((), 100)]
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
    async with relaying(EventStore(store), Leadership(store, "relay"), broadcast) as relay:
        await add(store, confirmed(1))
        await until(lambda: len(broadcast.heard) == 1)
        for number in range(2, 12):
            await add(store, confirmed(number))
            relay.poked.set()
            await until(lambda number=number: len(broadcast.heard) == number)  # type: ignore[misc]


async def test_who_stands_by_publishes_nothing(store: Store, other: Store) -> None:
    leading = Leadership(other, "relay")
    assert await leading.held()
    await add(store, confirmed(1))
    broadcast = FakeBroadcast()
    async with relaying(EventStore(store), Leadership(store, f"standby-{new_id()}"), FakeBroadcast()):
        await until(lambda: _is_left(store, []))  # another role leads: time enough to have looked
        await add(store, confirmed(2))
    async with relaying(EventStore(store), Leadership(store, "relay"), broadcast):
        assert await _is_left(store, ["2"])
        await leading.release()
        await until(lambda: _is_left(store, []))
    assert len(broadcast.heard) == 1
