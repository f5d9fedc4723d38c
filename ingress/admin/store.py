"""The operator's view of the rows, and the few changes that an operator makes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Select, and_, delete, false, func, or_, select
from sqlalchemy.exc import IntegrityError

from common.store.connections import revoke_connection
from common.store.engine import Store, Transaction
from common.store.insert import insert
from common.store.parked import Parked, count_parked, drop_parked, get_parked, list_parked
from common.store.targets import want_known
from ingress.admin.rules import ListingFilter, Paging, UserChange
from ingress.inventory import Location, restored, stored
from schemas.tables import (
    SYNCAROO_ACCOUNT,
    CodeRow,
    ConnectionRow,
    EventRow,
    GrantRow,
    InventoryRow,
    ListingRow,
    TargetRow,
    UserRow,
    table_of,
)

_user = table_of(UserRow)
_inventory = table_of(InventoryRow)
_connection = table_of(ConnectionRow)
_code = table_of(CodeRow)
_listing = table_of(ListingRow)
_event = table_of(EventRow)
_target = table_of(TargetRow)
_grant = table_of(GrantRow)


class LoginTaken(Exception):
    """Another user logs in so."""


class User(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A user as operators see it: never with the password."""

    user_id: str
    login: str | None


class Connection(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A user's connection. `state`: authorised, confirmed, revoked."""

    connection_id: int
    user_id: str
    state: str
    created_at: datetime
    confirmed_at: datetime | None
    revoked_at: datetime | None


class Listing(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A listing: the members of an event's data that say which, and what it is now."""

    listing_id: str
    connection_id: int
    attribute_type: str
    item_id: str
    location_id: str | None
    resource_id: str | None
    resource_type: str | None
    version: int
    current: msgspec.Raw
    deleted: bool


class GrantStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Our access to Syncaroo."""

    state: str = "none"
    expires_at: datetime | None = None


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How much there is of everything."""

    grant: GrantStatus
    targets: dict[str, int]
    listings: int
    events: dict[str, int]
    parked: dict[str, int]
    connections: dict[str, int]


class AdminStore:
    """Values in and out; every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # --- users and their listings ---

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

    # --- connections ---

    async def connections(self, paging: Paging) -> list[Connection]:
        """Connections by number, after the cursor's."""
        query = select(_connection).order_by(_connection.c.connection_id).limit(paging.limit)
        if paging.after is not None:
            query = query.where(_connection.c.connection_id > paging.after[0])
        async with self._store.reading() as transaction:
            return [_shown(row) for row in await transaction.rows(query)]

    async def connection(self, connection_id: int) -> Connection | None:
        """One connection."""
        async with self._store.reading() as transaction:
            return await _connection_of(transaction, connection_id)

    async def revoke(self, connection_id: int) -> bool:
        """Revoke a connection; False: there is none."""
        async with self._store.transaction() as transaction:
            await revoke_connection(transaction, connection_id)
            return await _connection_of(transaction, connection_id) is not None

    async def resync(self, connection_id: int) -> int:
        """Make all that is known of a connection wanted; gives the number of targets."""
        async with self._store.transaction() as transaction:
            return await want_known(transaction, connection_id, "hand")

    # --- listings ---

    async def listings(self, wanted: ListingFilter, paging: Paging) -> list[Listing]:
        """Listings by connection and id, after the cursor's."""
        key = (_listing.c.connection_id, _listing.c.listing_id)
        query = _seen_listings().order_by(*key).limit(paging.limit)
        for column, value in (
            (_listing.c.connection_id, wanted.connection_id),
            (_listing.c.location_id, wanted.location_id),
            (_listing.c.attribute_type, wanted.attribute_type),
        ):
            if value is not None:
                query = query.where(column == value)
        if paging.after is not None:
            connection_id, listing_id = paging.after
            later = and_(_listing.c.connection_id == connection_id, _listing.c.listing_id > listing_id)
            query = query.where(or_(_listing.c.connection_id > connection_id, later))
        async with self._store.reading() as transaction:
            return [_listing_of(row) for row in await transaction.rows(query)]

    async def listing(self, listing_id: str) -> Listing | None:
        """One listing."""
        async with self._store.reading() as transaction:
            row = await transaction.row(_seen_listings().where(_listing.c.listing_id == listing_id))
        return None if row is None else _listing_of(row)

    async def history(self, listing: Listing, paging: Paging) -> list[dict[str, Any]]:
        """The listing's events by version, after the cursor's: each event's data, and what led to it."""
        query = (
            select(_event)
            .where(_event.c.connection_id == listing.connection_id, _event.c.listing_id == listing.listing_id)
            .order_by(_event.c.version)
            .limit(paging.limit)
        )
        if paging.after is not None:
            query = query.where(_event.c.version > paging.after[0])
        async with self._store.reading() as transaction:
            return [_past(row) for row in await transaction.rows(query)]

    # --- dead letters ---

    async def parked(self, queue: str | None, paging: Paging) -> list[Parked]:
        """What is parked, in the order of parking."""
        after = "" if paging.after is None else str(paging.after[0])
        async with self._store.reading() as transaction:
            return await list_parked(transaction, queue=queue, after=after, limit=paging.limit)

    async def one_parked(self, parked_id: str) -> Parked | None:
        """One of them."""
        async with self._store.reading() as transaction:
            return await get_parked(transaction, parked_id)

    async def drop_parked(self, parked_id: str) -> bool:
        """Forget one; False: there is none."""
        async with self._store.transaction() as transaction:
            return await drop_parked(transaction, parked_id)

    # --- status ---

    async def counts(self) -> Counts:
        """Everything counted."""
        due = select(func.count()).where(_target.c.wanted > _target.c.answered)
        live = select(func.count()).where(_listing.c.deleted == false(), _listing.c.version > 0)
        unpublished = select(func.count()).where(_event.c.published_at.is_(None))
        states = select(_connection.c.state, func.count().label("found")).group_by(_connection.c.state)
        async with self._store.reading() as transaction:
            return Counts(
                grant=await _grant_status(transaction),
                targets={"due": await _number(transaction, due)},
                listings=await _number(transaction, live),
                events={"unpublished": await _number(transaction, unpublished)},
                parked=await count_parked(transaction),
                connections={row.state: row.found for row in await transaction.rows(states)},
            )


def _seen_listings() -> Select[Any]:
    """Placeholders (version 0) are nobody's business."""
    return select(_listing).where(_listing.c.version > 0)


def _listing_of(row: Any) -> Listing:
    return Listing(
        listing_id=row.listing_id,
        connection_id=row.connection_id,
        attribute_type=row.attribute_type,
        item_id=row.item_id,
        location_id=row.location_id,
        resource_id=row.resource_id,
        resource_type=row.resource_type,
        version=row.version,
        current=msgspec.Raw((row.body or "null").encode()),
        deleted=row.deleted,
    )


def _past(row: Any) -> dict[str, Any]:
    data: dict[str, msgspec.Raw] = msgspec.json.decode(row.data, type=dict[str, msgspec.Raw])
    cause = None if row.cause is None else msgspec.Raw(row.cause.encode())
    told = {"eventId": row.event_id, "at": row.created_at, "publishedAt": row.published_at, "cause": cause}
    return {**told, **data}


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


async def _connection_of(transaction: Transaction, connection_id: int) -> Connection | None:
    row = await transaction.row(select(_connection).where(_connection.c.connection_id == connection_id))
    return None if row is None else _shown(row)


def _shown(row: Any) -> Connection:
    """What operators see of it; the row knows more."""
    return Connection(**{name: getattr(row, name) for name in Connection.__struct_fields__})


async def _grant_status(transaction: Transaction) -> GrantStatus:
    row = await transaction.row(select(_grant).where(_grant.c.account == SYNCAROO_ACCOUNT))
    return GrantStatus() if row is None else GrantStatus(state=row.state, expires_at=row.expires_at)


async def _number(transaction: Transaction, query: Select[Any]) -> int:
    return int((await transaction.execute(query)).scalar_one())
