"""The platform's own listings of each user, as they are kept here."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import select

from common.store.engine import Store, Transaction
from common.store.insert import insert
from ingress.inventory import Location, restored, stored
from schemas.tables import InventoryRow, UserRow, table_of

_user = table_of(UserRow)
_inventory = table_of(InventoryRow)


class InventoryStore:
    """Users' listings; every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def locations(self, user_id: str) -> list[Location] | None:
        """The user's listings; None: no such user."""
        async with self._store.reading() as transaction:
            if not await _is_user(transaction, user_id):
                return None
            return await _locations(transaction, user_id)

    async def put_locations(self, user_id: str, locations: Sequence[Location]) -> list[Location] | None:
        """Replace the user's listings; those that are absent are marked `deleted`. None: no such user."""
        async with self._store.transaction() as transaction:
            if not await _is_user(transaction, user_id, hold=True):
                return None
            given = {location.id for location in locations}
            absent = [one for one in await _locations(transaction, user_id) if one.id not in given]
            for location in [*locations, *map(_deleted, absent)]:
                await _put_location(transaction, user_id, location)
            return await _locations(transaction, user_id)

    async def put_location(self, user_id: str, location: Location) -> bool | None:
        """Add or replace one; True when it is new, None: no such user."""
        async with self._store.transaction() as transaction:
            if not await _is_user(transaction, user_id, hold=True):
                return None
            known = await _location(transaction, user_id, location.id)
            await _put_location(transaction, user_id, location)
        return known is None

    async def delete_location(self, user_id: str, location_id: str) -> bool:
        """Mark one `deleted`; False: there is none."""
        async with self._store.transaction() as transaction:
            known = await _location(transaction, user_id, location_id)
            if known is not None:
                await _put_location(transaction, user_id, _deleted(known))
        return known is not None


async def _is_user(transaction: Transaction, user_id: str, *, hold: bool = False) -> bool:
    query = select(_user.c.user_id).where(_user.c.user_id == user_id)
    return await transaction.row(query.with_for_update() if hold else query) is not None


async def _locations(transaction: Transaction, user_id: str) -> list[Location]:
    query = select(_inventory.c.body).where(_inventory.c.user_id == user_id).order_by(_inventory.c.location_id)
    return [restored(row.body) for row in await transaction.rows(query)]


async def _location(transaction: Transaction, user_id: str, location_id: str) -> Location | None:
    row = await transaction.row(
        select(_inventory.c.body)
        .where(_inventory.c.user_id == user_id, _inventory.c.location_id == location_id)
        .with_for_update()
    )
    return None if row is None else restored(row.body)


async def _put_location(transaction: Transaction, user_id: str, location: Location) -> None:
    body = stored(location)
    statement = insert(transaction, _inventory).values(user_id=user_id, location_id=location.id, body=body)
    await transaction.execute(
        statement.on_conflict_do_update(index_elements=["user_id", "location_id"], set_={"body": body})
    )


def _deleted(location: Location) -> Location:
    return msgspec.structs.replace(location, status="deleted")
