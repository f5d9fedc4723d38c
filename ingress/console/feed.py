"""One look at the store per process, again and again, for all who have the console open; nobody looks when none has."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from common.clock import Monotonic
from common.errors import BrokerUnavailable, StoreUnavailable
from common.logs import get_logger
from ingress.admin.store.connections import Connection
from ingress.console.rules import Choice, Told, told
from ingress.console.stages import Surroundings
from ingress.console.store import EventLogStore, PeopleStore
from ingress.flow.flow import Flow
from ingress.flow.store import FlowStore

LOOK_SECONDS = 0.4
STANDING_SECONDS = 2.0
CONNECTIONS_SECONDS = 10.0
ANSWER_SECONDS = 5.0
"""A store that takes longer counts as away."""
MOST_LISTENERS = 20
KEPT_FOR_ONE = 1000
"""Events that one listener may be behind; then it is sent off, and comes back by itself with where it was."""
AT_ONCE = 200
"""Events that are read in one look; the others in the next."""
QUEUES = ("syncaroo.fetch", "syncaroo.reconcile")

log = get_logger(__name__)


class Broker(Protocol):
    """What is asked of a publisher."""

    @property
    def ready(self) -> bool:
        """Whether it is connected."""

    async def depths(self, queues: Sequence[str], *, seconds: float = 2.0) -> dict[str, int]:
        """How many messages wait in each.

        Raises:
            BrokerUnavailable: nobody knows.
        """


@dataclass(frozen=True)
class OneConnection:
    """A connection with how many listings of it live (None: not counted)."""

    connection: Connection
    listings: int | None


@dataclass(frozen=True)
class Standing:
    """How everything stands; `flow` is None while the store is away."""

    flow: Flow | None
    around: Surroundings
    connections: Sequence[OneConnection] = ()

    @property
    def now(self) -> datetime | None:
        """By the store's clock."""
        return None if self.flow is None else self.flow.at


@dataclass(frozen=True)
class Happened:
    """An event, and the position that is settled by now: from there on somebody who comes back hears again."""

    event: Told
    settled: int


@dataclass(eq=False)
class Listener:
    """Somebody who has the console open; `owner` is what their session is known by."""

    choice: Choice
    owner: str
    queue: asyncio.Queue[Happened | Standing | None] = field(default_factory=lambda: asyncio.Queue(KEPT_FOR_ONE))

    def give(self, item: Happened | Standing) -> None:
        """Into their queue; whoever is too far behind is sent off."""
        try:
            self.queue.put_nowait(item)
        except asyncio.QueueFull:
            self.end()

    def end(self) -> None:
        """They are sent off: what waits is dropped."""
        while not self.queue.empty():
            self.queue.get_nowait()
        self.queue.put_nowait(None)


class Rate:
    """How much a counter has grown within the last minute; None: it is not watched for so long."""

    def __init__(self, clock: Monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, float]] = deque()

    def of(self, value: float) -> int | None:
        """With its value now."""
        now = self._clock()
        self._seen.append((now, value))
        while len(self._seen) > 1 and now - self._seen[1][0] >= 60:
            self._seen.popleft()
        first, before = self._seen[0]
        if now - first < LOOK_SECONDS:
            return None
        return round((value - before) * 60 / max(now - first, 60.0))


class Counter(Protocol):
    """Something that only grows."""

    def __call__(self) -> float:
        """Its value."""


@dataclass(frozen=True)
class Sources:
    """Where the console looks."""

    log: EventLogStore
    flow: FlowStore
    people: PeopleStore
    broker: Broker
    webhooks: Counter
    clock: Monotonic


class Feed:
    """Give its listeners everything that happens."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._rate = Rate(sources.clock)
        self._listeners: set[Listener] = set()
        self._looking: asyncio.Task[None] | None = None
        self._seen: set[str] = set()
        self._standing_at = self._connections_at = float("-inf")
        self._connections: Sequence[OneConnection] = ()
        self._closed = False

    def listen(self, choice: Choice, owner: str) -> Listener | None:
        """From now on; None: there are enough listeners, or this process is about to end."""
        if self._closed or len(self._listeners) >= MOST_LISTENERS:
            return None
        listener = Listener(choice, owner)
        self._listeners.add(listener)
        self._standing_at = float("-inf")
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_while_listened_to())
        return listener

    def leave(self, listener: Listener) -> None:
        """They have gone."""
        self._listeners.discard(listener)

    def end_of(self, owner: str) -> None:
        """This session has ended: so does all that it has open."""
        for listener in [one for one in self._listeners if one.owner == owner]:
            listener.end()

    async def close(self) -> None:
        """All are sent off, at once."""
        self._closed = True
        for listener in self._listeners:
            listener.end()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def standing(self) -> Standing:
        """How everything stands now; a store that is away is told in it."""
        around = await self._surroundings()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                flow = await self._sources.flow.read()
                return Standing(flow, around, await self._connections_then())
        except (StoreUnavailable, TimeoutError):
            return Standing(None, around)

    async def _look_while_listened_to(self) -> None:
        while self._listeners:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._tell_events()
            except (StoreUnavailable, TimeoutError):
                self._standing_at = float("-inf")
            except Exception:
                log.exception("console.look_failed")
            await self._tell_standing()
            await asyncio.sleep(LOOK_SECONDS)
        self._seen = set()

    async def _tell_events(self) -> None:
        recent = await self._sources.log.recent()
        new = [position for position, event_id in recent.found if event_id not in self._seen][:AT_ONCE]
        events = await self._sources.log.at(new) if new else []
        for event in map(told, events):
            happened = Happened(event, recent.settled)
            for listener in [one for one in self._listeners if one.choice.wants(event)]:
                listener.give(happened)
        in_window = {event_id for _, event_id in recent.found}
        self._seen = (self._seen & in_window) | {event.event_id for event in events}

    async def _tell_standing(self) -> None:
        now = self._sources.clock()
        if now < self._standing_at:
            return
        standing = await self.standing()
        took = self._sources.clock() - now
        self._standing_at = now + max(STANDING_SECONDS, 10 * took)
        for listener in list(self._listeners):
            listener.give(standing)

    async def _connections_then(self) -> Sequence[OneConnection]:
        if self._sources.clock() >= self._connections_at:
            self._connections = [OneConnection(*one) for one in await self._sources.people.connections()]
            self._connections_at = self._sources.clock() + CONNECTIONS_SECONDS
        return self._connections

    async def _surroundings(self) -> Surroundings:
        broker = self._sources.broker
        rate = self._rate.of(self._sources.webhooks())
        return Surroundings(await _depths(broker) if broker.ready else {}, rate, broker.ready)


async def _depths(broker: Broker) -> Mapping[str, int]:
    """Of the queues that the flow goes through; empty when nobody knows."""
    try:
        return await broker.depths(QUEUES)
    except BrokerUnavailable:
        return {}
