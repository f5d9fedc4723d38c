"""Which requests for snapshots are served, how one goes on, and how a listing's state looks on the wire. Pure."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec.structs import replace

from common.broker.outgoing import Outgoing
from common.codec import dumps
from common.errors import Permanent
from common.identity import NOUNS, plural
from common.ids import new_id
from common.store.events import headers_of, subject_of
from schemas.events import EventData, ListingSnapshot, SnapshotCompleted
from schemas.messages import Message, SnapshotPosition, SnapshotRequested
from workers.relay.rules import PendingEvent, on_the_wire

LONGEST_NAME = 255
"""Bytes of a queue's name, by AMQP."""
LONGEST_ID = 128
OURS = "syncaroo."


def request_in(message: Message) -> SnapshotRequested:
    """The request, if it may be served; it has an id from now on, and its kind is spelled as listings have it.

    Raises:
        Permanent: `unreadable_message`, `bad_queue_name`, `own_queue`, `bad_filter`, `bad_snapshot_id`.
    """
    if not isinstance(message, SnapshotRequested):
        raise Permanent("unreadable_message", "not a SnapshotRequested")
    check_queue(message.to)
    if message.location_id is not None and not _is_name(message.location_id, LONGEST_NAME):
        raise Permanent("bad_filter", "locationId is a name")
    kind = plural(message.attribute_type)
    if message.attribute_type is not None and kind not in NOUNS:
        raise Permanent("bad_filter", f"attributeType is one of {', '.join(sorted(NOUNS))}")
    if abs(message.connection_id or 0) >= 2**63:
        raise Permanent("bad_filter", "connectionId is a number of 64 bits")
    if message.snapshot_id is not None and not _is_name(message.snapshot_id, LONGEST_ID):
        raise Permanent("bad_snapshot_id", f"1 to {LONGEST_ID} bytes, printable")
    return msgspec.structs.replace(message, attribute_type=kind, snapshot_id=message.snapshot_id or new_id())


def check_queue(name: str) -> None:
    """Refuse what is no queue's name, and our own queues, whose messages are of other kinds.

    Raises:
        Permanent: `bad_queue_name`, `own_queue`.
    """
    if not _is_name(name, LONGEST_NAME):
        raise Permanent("bad_queue_name", f"1 to {LONGEST_NAME} bytes, printable")
    if name.startswith(OURS):
        raise Permanent("own_queue", f"queues whose names begin with {OURS} are the gateway's own")


def _is_name(text: str, longest: int) -> bool:
    return text.isprintable() and 0 < len(text.encode()) <= longest


def sent_by(request: SnapshotRequested) -> int:
    """How many listings were sent before this part."""
    return 0 if request.after is None else request.after.sent


def after(request: SnapshotRequested, last: ListingSnapshot, sent: int) -> SnapshotRequested:
    """The request for what comes behind `last`, when `sent` more listings are in the queue."""
    position = SnapshotPosition(
        connection_id=last.connection_id, listing_id=last.listing_id, sent=sent_by(request) + sent
    )
    return msgspec.structs.replace(request, after=position)


def state_on_the_wire(listing: ListingSnapshot, request: SnapshotRequested, at: datetime, source: str) -> Outgoing:
    """A listing's state, as an event."""
    return _event(listing, request, at, source)


def end_on_the_wire(request: SnapshotRequested, at: datetime, source: str) -> Outgoing:
    """Nothing is missing, as an event."""
    assert request.snapshot_id is not None
    return _event(SnapshotCompleted(snapshot_id=request.snapshot_id, listings=sent_by(request)), request, at, source)


def _event(event: EventData, request: SnapshotRequested, at: datetime, source: str) -> Outgoing:
    subject = request.snapshot_id if isinstance(event, SnapshotCompleted) else subject_of(event)
    row = PendingEvent(
        connection_id=getattr(event, "connection_id", 0),
        event_id=new_id(),
        type=type(event).TYPE,
        schema_version=type(event).SCHEMA_VERSION,
        subject=subject or "",
        listing_id=getattr(event, "listing_id", None),
        data=dumps(event).decode(),
        headers=dumps(headers_of(event)).decode(),
        created_at=at,
    )
    return replace(on_the_wire(row, source), correlation_id=request.snapshot_id)
