"""Users, and the platform's own listings of each."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from common.store.connections import revoke_connection
from common.store.engine import Store, Transaction
from common.store.insert import insert
from ingress.admin.rules import UserChange
from ingress.inventory import Location, restored, stored
from schemas.tables import CodeRow, ConnectionRow, InventoryRow, UserRow, table_of

_user = table_of(UserRow)
_inventory = table_of(InventoryRow)
_connection = table_of(ConnectionRow)
_code = table_of(CodeRow)


class LoginTaken(Exception):
    """Another user logs in so."""


class User(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A user as operators see it: never with the password."""

    user_id: str
    login: str | None


class UserStore:
    """Who may connect; every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put_user(self, change: UserChange, password_hash: str | None) -> bool:
        """Create or change a user; True when it is new.

        Raises:
            LoginTaken: another user has this login.
        """
        values = {"login": change.login, "password_hash": password_hash}
        told = {name: value for name, value in values.items() if value is not None}
        try:
            async with self._store.transaction() as transaction:
                known = await transaction.row(select(_user.c.user_id).where(_user.c.user_id == change.user_id))
                row = {"user_id": change.user_id, "created_at": await transaction.now(), **told}
                statement = insert(transaction, _user).values(row)
                same = {"user_id": change.user_id}
                await transaction.execute(
                    statement.on_conflict_do_update(index_elements=["user_id"], set_=told or same)
                )
        except IntegrityError:
            raise LoginTaken from None
        return known is None

    async def user(self, user_id: str) -> User | None:
        """One user."""
        async with self._store.reading() as transaction:
            row = await transaction.row(select(_user).where(_user.c.user_id == user_id))
        return None if row is None else User(user_id=row.user_id, login=row.login)

    async def erase_user(self, user_id: str) -> bool:
        """Forget a person: account, listings of theirs, codes; their connections are revoked.

        What stays of a connection (its number, whose it was, its refused token families) keeps its tokens refused.
        """
        async with self._store.transaction() as transaction:
            gone = await transaction.execute(delete(_user).where(_user.c.user_id == user_id))
            mine = select(_connection.c.connection_id).where(_connection.c.user_id == user_id)
            for row in await transaction.rows(mine.order_by(_connection.c.connection_id)):
                await revoke_connection(transaction, row.connection_id)
            await transaction.execute(delete(_inventory).where(_inventory.c.user_id == user_id))
            await transaction.execute(delete(_code).where(_code.c.user_id == user_id))
        return bool(gone.rowcount)

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
