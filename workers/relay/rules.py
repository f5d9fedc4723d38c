"""Which events may leave now, and how one looks on the wire. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from common.broker.publisher import Outgoing
from common.broker.topology import EVENTS
from common.codec import decode, dumps
from schemas.events import EVENT_TYPES, CloudEvent, dataschema_of

CONTENT_TYPE = "application/cloudevents+json"


@dataclass(frozen=True)
class PendingEvent:
    """An event row that is not published yet."""

    connection_id: int
    event_id: str
    type: str
    subject: str
    listing_id: str | None
    data: str
    headers: str
    created_at: datetime


class Window:
    """The unpublished events that a relay holds, in the order in which they may leave.

    An event waits until the one before it in its listing has left. What has left stays known until it is marked, so
    that a second look at the store brings nothing in twice.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, deque[PendingEvent]] = {}
        """By key, what has not left; the first of a lane may be under way."""
        self._ready: deque[str] = deque()
        """Lanes of which nothing is under way."""
        self.known: set[str] = set()
        """Ids of all that are held."""
        self.left: list[PendingEvent] = []
        """Those that have left and are to be marked."""

    def __len__(self) -> int:
        """How many have not left."""
        return len(self.known) - len(self.left)

    @property
    def has_ready(self) -> bool:
        """Whether `take` gives one."""
        return bool(self._ready)

    def add(self, events: Sequence[PendingEvent]) -> None:
        """Take up what is new of these; the oldest come first."""
        for event in events:
            if event.event_id in self.known:
                continue
            self.known.add(event.event_id)
            lane = self._lanes.setdefault(order_key(event), deque())
            if not lane:
                self._ready.append(order_key(event))
            lane.append(event)

    def take(self) -> PendingEvent:
        """The next one that may leave; it is under way from now on."""
        return self._lanes[self._ready.popleft()][0]

    def put_back(self, event: PendingEvent) -> None:
        """It has not left: it is the next of its listing again."""
        self._ready.appendleft(order_key(event))

    def has_left(self, event: PendingEvent) -> None:
        """The next of its listing may leave."""
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
        dataschema=dataschema_of(source, EVENT_TYPES[event.type]),
        data=msgspec.Raw(event.data.encode()),
    )
    return Outgoing(
        routing_key=event.type,
        exchange=EVENTS,
        body=dumps(body),
        headers=decode(event.headers.encode(), dict[str, str]),
        properties={"content_type": CONTENT_TYPE, "message_id": event.event_id, "type": event.type},
    )
