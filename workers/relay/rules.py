"""Which events may leave now, and how one looks on the wire. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from common.broker.publisher import Outgoing
from common.broker.topology import EVENTS
from common.codec import decode, dumps
from schemas.events import CloudEvent, EventData

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


def ready_now(pending: Sequence[PendingEvent]) -> list[PendingEvent]:
    """At most one event per listing, the oldest: the next leaves when this one is confirmed."""
    first: dict[str, PendingEvent] = {}
    for event in pending:
        first.setdefault(order_key(event), event)
    return list(first.values())


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
        dataschema=f"{source.rstrip('/')}/schemas/{event.type}/{EventData.SCHEMA_VERSION}",
        data=msgspec.Raw(event.data.encode()),
    )
    return Outgoing(
        routing_key=event.type,
        exchange=EVENTS,
        body=dumps(body),
        headers=decode(event.headers.encode(), dict[str, str]),
        properties={"content_type": CONTENT_TYPE, "message_id": event.event_id, "type": event.type},
    )
