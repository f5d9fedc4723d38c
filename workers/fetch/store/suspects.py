"""Suspects: listings that a complete walk over their collection did not meet are asked themselves."""

from __future__ import annotations

from sqlalchemy import false, select

from common.identity import place_of
from common.store.engine import Transaction
from common.store.targets import Wanted, want
from schemas.messages import PlatformIds
from schemas.tables import ListingRow, table_of
from workers.fetch.claim import Claim
from workers.fetch.rules import item_urls

_listing = table_of(ListingRow)


async def suspect_absent(transaction: Transaction, claim: Claim, seen_ids: frozenset[str]) -> int:
    """Have every listing of the claim's collection asked that the walk did not meet. Gives their number."""
    place = place_of(claim.url)
    rows = await transaction.rows(
        select(_listing.c.item_id, _listing.c.own_url)
        .where(_listing.c.connection_id == claim.connection_id, _listing.c.scope == place.scope)
        .where(_listing.c.deleted == false(), _listing.c.version > 0, _listing.c.began < claim.first)
    )
    absent = [row for row in rows if row.item_id not in seen_ids]
    urls = [row.own_url or item_urls(claim.url, [row.item_id])[0] for row in absent]
    await want(transaction, [Wanted(claim.connection_id, url, PlatformIds(), "resync") for url in urls])
    return len(urls)
