"""The `parked` table: what could not be processed, with its reason, until a person replays or drops it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select

from common import tracing
from common.ids import new_id
from common.store.engine import Transaction
from common.store.erasing import erased_among
from schemas.tables import ParkedRow, table_of

_parked = table_of(ParkedRow)


@dataclass(frozen=True)
class Parked:
    """Something parked: `body` is the message as it was, `routing_key` where it goes when it is replayed.

    `traceparent` is the trace that it is of: without one, that of the current span when it is parked.
    """

    queue: str
    reason: str
    connection_id: int | None
    routing_key: str
    schema_name: str
    body: bytes
    attempts: int
    parked_id: str = ""
    parked_at: datetime | None = None
    traceparent: str | None = None

    @property
    def headers(self) -> dict[str, Any]:
        """Those of the message that replays it."""
        trace = {} if self.traceparent is None else {tracing.HEADER: self.traceparent}
        return {"schema": self.schema_name, "attempt": 0, **trace}


async def park(transaction: Transaction, parked: Sequence[Parked]) -> None:
    """Add rows, but none of an erased user's connection."""
    erased = await erased_among(transaction, {one.connection_id for one in parked if one.connection_id is not None})
    now = await transaction.now()
    rows = [
        {
            "parked_id": new_id(),
            "queue": one.queue,
            "reason": one.reason,
            "connection_id": one.connection_id,
            "routing_key": one.routing_key,
            "schema_name": one.schema_name,
            "body": one.body,
            "attempts": one.attempts,
            "parked_at": now,
            "traceparent": one.traceparent or tracing.current(),
        }
        for one in parked
        if one.connection_id not in erased
    ]
    if rows:
        await transaction.execute(_parked.insert(), rows)


async def list_parked(
    transaction: Transaction,
    *,
    queue: str | None = None,
    connection_id: int | None = None,
    reason: str | None = None,
    after: str = "",
    limit: int = 100,
) -> list[Parked]:
    """Parked things in the order of parking, from after the id `after`."""
    query = select(_parked).where(_parked.c.parked_id > after).order_by(_parked.c.parked_id).limit(limit)
    if queue is not None:
        query = query.where(_parked.c.queue == queue)
    if connection_id is not None:
        query = query.where(_parked.c.connection_id == connection_id)
    if reason is not None:
        query = query.where(_parked.c.reason == reason)
    return [_value(row) for row in await transaction.rows(query)]


async def get_parked(transaction: Transaction, parked_id: str) -> Parked | None:
    """One of them."""
    row = await transaction.row(select(_parked).where(_parked.c.parked_id == parked_id))
    return None if row is None else _value(row)


async def drop_parked(transaction: Transaction, parked_id: str) -> bool:
    """Remove one; False when it is not there."""
    result = await transaction.execute(delete(_parked).where(_parked.c.parked_id == parked_id))
    return bool(result.rowcount)


async def count_parked(transaction: Transaction) -> dict[str, int]:
    """How many, by reason."""
    query = select(_parked.c.reason, func.count().label("found")).group_by(_parked.c.reason)
    return {row.reason: row.found for row in await transaction.rows(query)}


def _value(row: Any) -> Parked:
    return Parked(**row._mapping)
