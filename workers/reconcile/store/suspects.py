"""Suspects among the listings of one answer: the brake on deletions, and what lies under a deleted listing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import false, select

from common.brake import NO_BRAKE, Suspect, Vanished
from common.identity import item_url
from common.store.bulk import given, is_one_of
from common.store.engine import Transaction
from common.store.suspects import drop_suspects, held_back, put_suspects, suspects_of
from common.store.targets import Wanted, want
from common.store.turns import lock_feeds
from schemas.messages import PlatformIds, Source
from schemas.tables import ListingRow, SuspectRow, table_of
from workers.reconcile.deletion import deletions, is_held, is_settled, undecided
from workers.reconcile.finding import Outcomes
from workers.reconcile.rules import Listing, Outcome

_listing, _suspect_row = table_of(ListingRow), table_of(SuspectRow)


async def known_suspects(
    transaction: Transaction, known: Mapping[str, Listing], outcomes: Outcomes
) -> dict[str, Suspect]:
    """What is noted of these listings, whose rows are locked; none of it changes until the transaction ends."""
    if not known:
        return {}
    connection_id = next(iter(known.values())).connection_id
    if not deletions(outcomes) and not await any_suspects(transaction, known):  # nearly always: nobody is held up
        return {}
    await lock_feeds(transaction, {connection_id})
    return await suspects_of(transaction, connection_id, known)


async def any_suspects(transaction: Transaction, known: Mapping[str, Listing]) -> bool:
    """Whether anything is noted of any of these listings, whose rows are locked."""
    connections = {listing.connection_id for listing in known.values()}
    which = {"connection_id": given(transaction, connections), "listing_id": given(transaction, known.keys())}
    return await transaction.row(_some_of(transaction.postgres), which) is not None


async def brake(
    transaction: Transaction,
    suspects: Mapping[str, Suspect],
    known: Mapping[str, Listing],
    outcomes: Outcomes,
    source: Source,
    share: float,
) -> dict[str, Outcome]:
    """The outcomes, with the deletions set aside that a person decides about."""
    deleting = deletions(outcomes)
    if not deleting:
        return {**outcomes}
    waiting = undecided(deleting, suspects, await transaction.now())
    new = [known[one] for one in waiting if not is_held(one, suspects)]
    vanished = [_vanished(listing.listing_id, listing.own_url, listing.own_path, source) for listing in new]
    if new and not await held_back(transaction, new[0].connection_id, vanished, source.began, share):
        waiting = [one for one in waiting if is_held(one, suspects)]
    return {**outcomes, **{one: Outcome(known[one], held=True) for one in waiting}}


async def settle(transaction: Transaction, suspects: Mapping[str, Suspect], outcomes: Outcomes) -> None:
    """Those that answered, or are gone, are no suspects any more."""
    settled = [one for one, suspect in suspects.items() if is_settled(outcomes[one].listing, suspect)]
    if settled:
        await drop_suspects(transaction, outcomes[settled[0]].listing.connection_id, settled)


async def suspect_children(
    transaction: Transaction, parents: Sequence[Listing], suspects: Mapping[str, Suspect], source: Source, share: float
) -> None:
    """What lies under a deleted listing is asked itself, unless there is too much of it; only its own answer deletes
    it. What a person agreed to for the parent holds for what lies under it."""
    for parent in parents:
        approved = parent.listing_id in suspects and suspects[parent.listing_id].state == "approved"
        children = await _children(transaction, parent, source)
        if children:
            await _suspect(transaction, parent.connection_id, children, source.began, NO_BRAKE if approved else share)


@cache
def _some_of(postgres: bool) -> Any:
    columns = (_suspect_row.c.connection_id, _suspect_row.c.listing_id)
    return select(columns[0]).where(*(is_one_of(one, one.name, postgres) for one in columns)).limit(1)


async def _suspect(
    transaction: Transaction, connection_id: int, children: Sequence[Vanished], walk: int, share: float
) -> None:
    suspects = await suspects_of(transaction, connection_id)
    waiting = undecided([one.listing_id for one in children], suspects, await transaction.now())
    new = [one for one in children if one.listing_id in waiting and not is_held(one.listing_id, suspects)]
    if await held_back(transaction, connection_id, new, walk, share):
        return
    await put_suspects(transaction, connection_id, new, "pending", walk)
    await want(transaction, [Wanted(connection_id, one.url, PlatformIds(), "resync") for one in new if one.url])


async def _children(transaction: Transaction, parent: Listing, source: Source) -> list[Vanished]:
    rows = await transaction.rows(
        select(_listing.c.listing_id, _listing.c.own_url, _listing.c.own_path)
        .where(_listing.c.connection_id == parent.connection_id, _listing.c.version > 0)
        .where(_listing.c.deleted == false())
        .where(_listing.c.own_path.startswith(f"{parent.own_path}/", autoescape=True))
        .order_by(_listing.c.listing_id)
    )
    children = [_vanished(row.listing_id, row.own_url, row.own_path, source) for row in rows]
    return [one for one in children if one.url is not None]


def _vanished(listing_id: str, own_url: str | None, own_path: str, source: Source) -> Vanished:
    return Vanished(listing_id, own_url or item_url(own_path, source.url))
