"""Suspects in the store: listings that may have vanished, and the brake that they have to pass.

Who writes them holds the connection's feed (`lock_feeds`): the brake is asked by one at a time, also when several walks
and answers end at once. Rows are locked in the order listing, feed, target.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import case, delete, false, func, select, true

from common.brake import PENDING_COUNTS, State, Suspect, Tally, Vanished, is_news, is_too_many
from common.store.engine import Transaction
from common.store.events import append_events
from common.store.insert import insert
from schemas.events import SyncHeld
from schemas.tables import ListingRow, SuspectRow, table_of

HOUR = timedelta(hours=1)

_suspect = table_of(SuspectRow)
_listing = table_of(ListingRow)


async def suspects_of(
    transaction: Transaction, connection_id: int, listing_ids: Collection[str] | None = None
) -> dict[str, Suspect]:
    """The connection's suspects (or those among `listing_ids`) by listing id."""
    query = select(_suspect).where(_suspect.c.connection_id == connection_id)
    if listing_ids is not None:
        query = query.where(_suspect.c.listing_id.in_(listing_ids))
    return {
        row.listing_id: Suspect(Vanished(row.listing_id, row.url), row.state, row.walk, row.since)
        for row in await transaction.rows(query)
    }


async def held_back(
    transaction: Transaction, connection_id: int, new: Sequence[Vanished], walk: int, brake: float
) -> bool:
    """Whether the brake holds the whole batch of suspects; then they are held, and a person is told.

    The caller holds the connection's feed.
    """
    if not new:
        return False
    tally = await _tally(transaction, connection_id)
    if not is_too_many(len(new), tally, brake):
        return False
    await put_suspects(transaction, connection_id, new, "held", walk)
    if is_news(tally.held, len(new)):
        held = tally.held + len(new)
        await append_events(transaction, [SyncHeld(connection_id=connection_id, held=held, live=tally.live)])
    return True


async def put_suspects(
    transaction: Transaction, connection_id: int, vanished: Sequence[Vanished], state: State, walk: int
) -> None:
    """Note suspects, in place of what was noted of them before."""
    if not vanished:
        return
    now = await transaction.now()
    values = {"state": state, "walk": walk, "since": now}
    rows: list[dict[str, Any]] = [
        {"connection_id": connection_id, "listing_id": one.listing_id, "url": one.url, **values}
        for one in sorted(vanished, key=lambda one: one.listing_id)
    ]
    statement = insert(transaction, _suspect)
    taken = {name: statement.excluded[name] for name in ("url", *values)}
    keys = ["connection_id", "listing_id"]
    await transaction.execute(statement.on_conflict_do_update(index_elements=keys, set_=taken), rows)


async def drop_suspects(transaction: Transaction, connection_id: int, listing_ids: Collection[str]) -> None:
    """They are no suspects any more."""
    await transaction.execute(
        delete(_suspect).where(_suspect.c.connection_id == connection_id, _suspect.c.listing_id.in_(listing_ids))
    )


async def _tally(transaction: Transaction, connection_id: int) -> Tally:
    now = await transaction.now()
    gone = (_listing.c.deleted == true()) & (_listing.c.changed_at > now - HOUR)
    listings = await transaction.row(
        select(_count(_listing.c.deleted == false()).label("live"), _count(gone).label("deleted"))
        .where(_listing.c.connection_id == connection_id, _listing.c.version > 0)
    )  # fmt: skip
    fresh = (_suspect.c.state == "pending") & (_suspect.c.since > now - PENDING_COUNTS)
    suspects = await transaction.row(
        select(_count(fresh).label("pending"), _count(_suspect.c.state == "held").label("held"))
        .where(_suspect.c.connection_id == connection_id)
    )  # fmt: skip
    assert listings is not None
    assert suspects is not None
    return Tally(live=listings.live, deleted=listings.deleted, pending=suspects.pending, held=suspects.held)


def _count(condition: Any) -> Any:
    return func.count(case((condition, 1)))
