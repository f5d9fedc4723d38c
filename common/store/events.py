"""Appending to the `event` table: in the transaction of the change that an event tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from common import tracing
from common.broker.outgoing import MAX_BODY
from common.codec import dumps
from common.errors import Permanent
from common.ids import new_id
from common.store.bulk import insert_rows
from common.store.engine import Transaction
from schemas.events import EventData, ListingNames
from schemas.tables import EventRow, table_of

MAX_EVENT = MAX_BODY - 64 * 1024
"""What a message holds, and its envelope."""

_event = table_of(EventRow)


@dataclass(frozen=True)
class Told:
    """An event, the JSON of what led to it, and the trace that it is of."""

    event: EventData
    cause: str | None
    trace: str | None


async def append_events(
    transaction: Transaction, events: Sequence[EventData], *, cause: msgspec.Struct | None = None
) -> None:
    """As `append_told`, of what is current and of one cause."""
    text, trace = text_of(cause), tracing.current()
    await append_told(transaction, [Told(event, text, trace) for event in events])


async def append_told(transaction: Transaction, told: Sequence[Told]) -> None:
    """Write the events in order; they leave through the relay once the transaction has committed.

    Raises:
        Permanent: `too_large`; the relay could never publish it, nor any event behind it.
    """
    if not told:
        return
    rows = [{**_columns(one.event), "cause": one.cause, "traceparent": one.trace} for one in told]
    now, positions = await transaction.stamps(len(rows))
    placed = [{**row, "position": position} for row, position in zip(rows, positions, strict=True)]
    await insert_rows(transaction, _event, placed, {"created_at": now})


def text_of(cause: msgspec.Struct | None) -> str | None:
    """As it is kept."""
    return None if cause is None else dumps(cause).decode()


def subject_of(event: EventData) -> str:
    """CloudEvents `subject`: `99/resources/7843`, the connection, or `grant`."""
    if isinstance(event, ListingNames):
        return f"{event.connection_id}/{event.attribute_type}/{event.item_id}"
    connection_id = getattr(event, "connection_id", None)
    return "grant" if connection_id is None else str(connection_id)


def headers_of(event: EventData) -> dict[str, str]:
    """The AMQP headers that subscribers may bind or filter on; one without a value is left out."""
    names = {
        "connectionId": "connection_id",
        "locationId": "location_id",
        "resourceId": "resource_id",
        "attributeType": "attribute_type",
        "change": "change",
    }
    values = {header: getattr(event, member, None) for header, member in names.items()}
    return {header: str(value) for header, value in values.items() if value is not None}


def _columns(event: EventData) -> dict[str, Any]:
    data = dumps(event)
    if len(data) > MAX_EVENT:
        raise Permanent("too_large", f"an event of more than {MAX_EVENT} bytes")
    return {
        "event_id": new_id(),
        "connection_id": getattr(event, "connection_id", 0),
        "type": type(event).TYPE,
        "schema_version": type(event).SCHEMA_VERSION,
        "subject": subject_of(event),
        "listing_id": getattr(event, "listing_id", None),
        "version": getattr(event, "version", None),
        "data": data.decode(),
        "headers": dumps(headers_of(event)).decode(),
    }
