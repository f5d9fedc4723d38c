"""The events of one answer: appended to the `event` table in one statement, in the transaction of the changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common import tracing
from common.codec import dumps
from common.errors import Permanent
from common.ids import new_id
from common.store.engine import Transaction
from common.store.events import MAX_EVENT, headers_of, subject_of
from schemas.events import ListingChanged
from schemas.messages import Source
from schemas.tables import EventRow, table_of
from workers.reconcile.store.bulk import insert_rows

_event = table_of(EventRow)


async def append_changes(transaction: Transaction, changes: Sequence[ListingChanged], cause: Source | None) -> None:
    """As `append_events`, of listings alone: a page has many.

    Raises:
        Permanent: `too_large`; the relay could never publish it, nor any event behind it.
    """
    if not changes:
        return
    positions = await transaction.numbers(len(changes))
    rows = [_row(change, position) for change, position in zip(changes, positions, strict=True)]
    alike = {
        "type": ListingChanged.TYPE,
        "schema_version": ListingChanged.SCHEMA_VERSION,
        "cause": None if cause is None else dumps(cause).decode(),
        "traceparent": tracing.current(),
        "created_at": await transaction.now(),
    }
    await insert_rows(transaction, _event, rows, alike)


def _row(change: ListingChanged, position: int) -> dict[str, Any]:
    data = dumps(change)
    if len(data) > MAX_EVENT:
        raise Permanent("too_large", f"an event of more than {MAX_EVENT} bytes")
    return {
        "connection_id": change.connection_id,
        "event_id": new_id(),
        "position": position,
        "subject": subject_of(change),
        "listing_id": change.listing_id,
        "version": change.version,
        "data": data.decode(),
        "headers": dumps(headers_of(change)).decode(),
    }
