"""Which events may leave now, and how one looks on the wire. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from common.broker.outgoing import Outgoing
from common.broker.topology import EVENTS
from common.codec import decode, dumps
from common.errors import BadJson
from schemas.events import CloudEvent, dataschema

CONTENT_TYPE = "application/cloudevents+json"

WINDOW_EVENTS = 2000
WINDOW_BYTES = 64 * 2**20
"""Of the data of events that have not left."""
LANE_EVENTS = 100
"""Held of one listing at most: whatever happens to it, the others have room."""


@dataclass(frozen=True)
class PendingEvent:
    """An event row that is not published yet."""

    connection_id: int
    event_id: str
    type: str
    schema_version: int
    """That of the schema by which `data` was written, whatever it is today."""
    subject: str
    listing_id: str | None
    data: str
    headers: str
    created_at: datetime
    cause: str | None = None
    """JSON: the attempt that led to it."""
    traceparent: str | None = None
    """The trace that it is of."""


class Cause(msgspec.Struct, frozen=True, rename="camel"):
    """Of an event's cause, what tells its webhook."""

    url: str
    asked: int = 0
    delivery_id: str | None = None


@dataclass(frozen=True)
class Waiting:
    """An event row that is not published yet, without its data: `lane` is its `order_key`, `size` that of the data."""

    position: int
    event_id: str
    lane: str
    size: int


class Window:
    """The unpublished events that a relay holds, in the order in which they may leave.

    An event waits until the one before it in its lane has left. What has left stays known until it is marked, so that a
    second look at the store brings nothing in twice. A lane holds only so many, so that one long one leaves room.
    """

    def __init__(self, *, events: int = WINDOW_EVENTS, lane: int = LANE_EVENTS, size: int = WINDOW_BYTES) -> None:
        self._most_events = events
        self._most_of_lane = lane
        self._most_bytes = size
        self._lanes: dict[str, deque[PendingEvent]] = {}
        """What has not left; the first of a lane may be under way."""
        self._ready: deque[str] = deque()
        """Lanes of which nothing is under way."""
        self._passed_by: set[str] = set()
        self._capped: set[str] = set()
        """Lanes that could hold no more at the last look: the store may have more of them."""
        self.known: set[str] = set()
        """Ids of all that are held."""
        self.left: list[PendingEvent] = []
        """Those that have left and are to be marked."""
        self.left_some = False
        """At the last look there was no room for all."""
        self._bytes = 0

    def __len__(self) -> int:
        """How many have not left."""
        return len(self.known) - len(self.left)

    @property
    def ready(self) -> int:
        """How many lanes have one that may leave now."""
        return len(self._ready)

    @property
    def is_full(self) -> bool:
        """Whether it takes no more; what has left counts until it is marked."""
        return len(self.known) >= self._most_events or self._bytes >= self._most_bytes

    @property
    def has_drained(self) -> bool:
        """Whether a lane that could hold no more has room again."""
        return any(len(self._lanes.get(key, ())) <= self._most_of_lane // 2 for key in self._capped)

    @property
    def passed_by(self) -> set[str]:
        """Lanes that need not be looked at: they hold enough, or something in them cannot be published."""
        return self._passed_by | self._full_lanes()

    def choose(self, waiting: Sequence[Waiting]) -> list[int]:
        """The positions of those to be read, the oldest first; at least one, when there is one that is new."""
        self._capped, self.left_some = self._full_lanes(), False
        chosen, most = list[int](), self._most_events - len(self.known)
        sizes, held = self._bytes, {key: len(lane) for key, lane in self._lanes.items()}
        for one in waiting:
            if one.event_id in self.known or one.lane in self._passed_by:
                continue
            if held.get(one.lane, 0) >= self._most_of_lane:
                self._capped.add(one.lane)
                continue
            if chosen and (len(chosen) >= most or sizes + one.size > self._most_bytes):
                self.left_some = True
                break
            chosen.append(one.position)
            sizes += one.size
            held[one.lane] = held.get(one.lane, 0) + 1
        return chosen

    def _full_lanes(self) -> set[str]:
        return {key for key, lane in self._lanes.items() if len(lane) >= self._most_of_lane}

    def add(self, events: Sequence[PendingEvent]) -> None:
        """Take up what is new of these; the oldest come first."""
        for event in events:
            key = order_key(event)
            if event.event_id in self.known or key in self._passed_by:
                continue
            self.known.add(event.event_id)
            self._bytes += len(event.data)
            lane = self._lanes.setdefault(key, deque())
            if not lane:
                self._ready.append(key)
            lane.append(event)

    def take(self) -> PendingEvent:
        """The next one that may leave; it is under way from now on."""
        return self._lanes[self._ready.popleft()][0]

    def put_back(self, event: PendingEvent) -> None:
        """It has not left: it is the next of its lane again, after the other lanes' next ones."""
        self._ready.append(order_key(event))

    def forget_ready(self) -> None:
        """Hold nothing of the lanes of which nothing is under way: it is to be read again before it leaves."""
        while self._ready:
            self._forget(self._ready.popleft())

    def pass_by(self, event: PendingEvent) -> None:
        """It cannot leave, and nothing behind it in its lane may: they are held no longer."""
        key = order_key(event)
        self._passed_by.add(key)
        self._forget(key)

    def _forget(self, key: str) -> None:
        for one in self._lanes.pop(key):
            self.known.discard(one.event_id)
            self._bytes -= len(one.data)

    def has_left(self, event: PendingEvent) -> None:
        """The next of its lane may leave."""
        self.left.append(event)
        key = order_key(event)
        lane = self._lanes[key]
        lane.popleft()
        if lane:
            self._ready.append(key)
        else:
            del self._lanes[key]

    def marked(self, events: Sequence[PendingEvent]) -> None:
        """The store knows that these have left."""
        gone = {event.event_id for event in events}
        self.known -= gone
        self._bytes -= sum(len(event.data) for event in events)
        self.left = [event for event in self.left if event.event_id not in gone]


def order_key(event: PendingEvent) -> str:
    """Events of one key leave in order."""
    return event.listing_id or f"{event.type} {event.subject}"


def on_the_wire(event: PendingEvent, source: str) -> Outgoing:
    """The CloudEvent as an AMQP message (CONTRACT §4)."""
    body = CloudEvent(
        id=event.event_id,
        source=source,
        type=event.type,
        subject=event.subject,
        time=event.created_at,
        dataschema=dataschema(source, event.type, event.schema_version),
        data=msgspec.Raw(event.data.encode()),
    )
    return Outgoing(
        routing_key=event.type,
        exchange=EVENTS,
        body=dumps(body),
        headers=decode(event.headers.encode(), dict[str, str]),
        content_type=CONTENT_TYPE,
        message_id=event.event_id,
        type=event.type,
    )


def webhook_of(event: PendingEvent) -> tuple[int, str, int] | None:
    """Which webhook led to the event: connection, URL and number; None: none did, or it does not say."""
    if event.cause is None:
        return None
    try:
        cause = decode(event.cause.encode(), Cause)
    except BadJson:
        return None  # of another kind: no answer led to it
    return None if cause.delivery_id is None else (event.connection_id, cause.url, cause.asked)


class _Caused(msgspec.Struct, frozen=True, rename="camel"):
    """Of an event's data, which webhook it answers."""

    delivery_id: str | None = None


def ids_of(event: PendingEvent) -> dict[str, Any]:
    """What log lines and traces say of an event: which connection, which listing, which webhook."""
    try:
        delivery_id = decode(event.data.encode(), _Caused).delivery_id
    except BadJson:  # of a later release, perhaps; that it can leave or not is not judged here
        delivery_id = None
    ids = {
        "connection_id": event.connection_id or None,
        "delivery_id": delivery_id,
        "listing": event.subject if event.listing_id else None,
    }
    return {name: value for name, value in ids.items() if value is not None}
