"""The provider's rows: accounts, connections, codes, token families, inventory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from sqlalchemy import case, null, select, update

from common.access_tokens import AccessToken
from common.logs import get_logger
from common.store.connections import revoke_family
from common.store.engine import Store, Transaction
from common.store.events import append_events
from common.store.insert import insert
from ingress.inventory import Location, restored
from ingress.oauth.rules import Verdict, judge
from schemas.events import ConnectionChanged
from schemas.tables import NOBODY, CodeRow, ConnectionRow, FamilyRow, InventoryRow, UserRow, table_of

_user = table_of(UserRow)
_inventory = table_of(InventoryRow)
_connection = table_of(ConnectionRow)
_code = table_of(CodeRow)
_family = table_of(FamilyRow)

log = get_logger(__name__)

CLOCK_MARGIN = timedelta(minutes=10)
"""How far the ingress's clock may be behind the store's before a revoked token is forgotten too early."""

REMEMBERED = timedelta(days=1)
"""For how long a revocation counts at least: ACCESS_TOKEN_SECONDS may have been longer when the token was issued."""


@dataclass(frozen=True)
class Account:
    """A user who may log in; `login` is None with an identity provider."""

    user_id: str
    login: str | None
    password_hash: str | None = field(repr=False)
    since: datetime

    @property
    def mark(self) -> str:
        """Another one when the password is another, or the user was erased and made again: sessions end with it."""
        return hashlib.sha256(f"{self.since.isoformat()} {self.password_hash}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class NewCode:
    """A code to remember: its hash, and all that it is bound to."""

    code_hash: str
    connection_id: int
    user_id: str
    client_id: str
    redirect_uri: str


class Consent(Enum):
    """What became of a consent."""

    GIVEN = "its code may be exchanged"
    SPENT = "its code was exchanged before, or is too old"
    NOT_YOURS = "the connection is not this user's to give"
    ENDED = "the connection is nobody's any more: its user was erased"


@dataclass(frozen=True)
class Issued:
    """A refresh token's coordinates: the connection's family, and the generation to hand out."""

    connection_id: int
    family: str
    generation: int


@dataclass(frozen=True)
class Checked:
    """A live connection and its user's listings."""

    connection_id: int
    user_id: str
    locations: list[Location]


class OAuthStore:
    """Values in and out; every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def account(self, user_id: str) -> Account | None:
        """The user of that id."""
        return await self._account(select(_user).where(_user.c.user_id == user_id))

    async def account_of(self, login: str) -> Account | None:
        """The user who logs in so."""
        return await self._account(select(_user).where(_user.c.login == login))

    async def known(self, user_id: str) -> Account:
        """The user whom the platform's identity provider calls so, made if the platform has not told us of them."""
        async with self._store.transaction() as transaction:
            row = {"user_id": user_id, "created_at": await transaction.now()}
            fresh = insert(transaction, _user).values(row).on_conflict_do_nothing(index_elements=["user_id"])
            await transaction.execute(fresh)
            found = await transaction.row(select(_user).where(_user.c.user_id == user_id))
        assert found is not None
        return _as_account(found)

    async def refusal(self, connection_id: int, user_id: str) -> Consent | None:
        """Why this user cannot consent to the connection; None: they can."""
        async with self._store.reading() as transaction:
            return await _refusal(transaction, connection_id, user_id)

    async def locations(self, user_id: str) -> list[Location]:
        """The user's listings."""
        async with self._store.reading() as transaction:
            return await _locations(transaction, user_id)

    async def allow(self, code: NewCode, lifetime: timedelta) -> Consent:
        """Remember the consent and its code, once however often it comes."""
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            if not await _is_user(transaction, code.user_id):
                return Consent.NOT_YOURS
            if await _is_spent(transaction, code, now):
                return Consent.SPENT
            if await transaction.row(_consent(transaction, code, now)) is None:
                return await _refusal(transaction, code.connection_id, code.user_id) or Consent.NOT_YOURS
            row = {
                "code_hash": code.code_hash,
                "connection_id": code.connection_id,
                "user_id": code.user_id,
                "client_id": code.client_id,
                "redirect_uri": code.redirect_uri,
                "expires_at": now + lifetime,
                "used_at": None,
                "family": None,
            }
            await transaction.execute(insert(transaction, _code).values(row).on_conflict_do_nothing())
        return Consent.GIVEN

    async def redeem(
        self, code_hash: str, client_id: str, redirect_uri: str | None, family: str, lifetime: timedelta
    ) -> Issued | None:
        """Use a code up, once and for all, and begin `family`; None: `invalid_grant`.

        A code that was used before takes back what it has issued.
        """
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            matches = [_code.c.code_hash == code_hash, _code.c.client_id == client_id]
            usable = [*matches, _code.c.used_at.is_(None), _code.c.expires_at > now]
            if redirect_uri is not None:
                usable.append(_code.c.redirect_uri == redirect_uri)
            used = await transaction.row(
                update(_code)
                .where(*usable)
                .values(used_at=now, family=family)
                .returning(_code.c.connection_id, _code.c.user_id)
            )
            if used is None:
                await _take_back(transaction, matches, now)
                return None
            if not await _is_live(transaction, used.connection_id, used.user_id):
                return None
            row = {
                "family": family,
                "connection_id": used.connection_id,
                "generation": 1,
                "rotated_at": now,
                "previously_rotated_at": None,
                "expires_at": now + lifetime,
                "revoked_at": None,
            }
            await transaction.execute(_family.insert().values(row))
        return Issued(used.connection_id, family, 1)

    async def rotate(self, family: str, generation: int, lifetime: timedelta) -> Issued | None:
        """Exchange generation `generation` of a family for its successor; None: `invalid_grant`."""
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            row = await _locked_family(transaction, family)
            if row is None or row.revoked_at is not None or row.expires_at <= now:
                return None
            before = row.previously_rotated_at or row.rotated_at
            verdict = judge(generation, row.generation, now - row.rotated_at, now - before)
            if verdict is Verdict.STOLEN:
                await revoke_family(transaction, family, now)
                log.warning("oauth.refresh_token_reused", connection_id=row.connection_id)
            if verdict is Verdict.CURRENT:
                await transaction.execute(
                    update(_family)
                    .where(_family.c.family == family, _family.c.generation == generation)
                    .values(
                        generation=generation + 1,
                        previously_rotated_at=_family.c.rotated_at,
                        rotated_at=now,
                        expires_at=now + lifetime,
                    )
                )
        if verdict in (Verdict.CURRENT, Verdict.REPEATED):
            return Issued(row.connection_id, family, generation + 1)
        return None

    async def check(self, token: AccessToken) -> Checked | None:
        """The token's connection and its user's listings, confirming it the first time; None: revoked."""
        async with self._store.reading() as transaction:
            row = await transaction.row(
                select(_connection.c.user_id, _connection.c.state)
                .join(_family, _family.c.connection_id == _connection.c.connection_id)
                .where(_family.c.family == token.family, _family.c.revoked_at.is_(None))
                .where(_connection.c.connection_id == token.connection_id, _connection.c.state != "revoked")
            )
            if row is None:
                return None
            locations = await _locations(transaction, row.user_id)
        if row.state == "authorised":
            await self._confirm(token.connection_id)
        return Checked(token.connection_id, row.user_id, locations)

    async def revoked_families(self, token_seconds: int) -> frozenset[str]:
        """The families revoked so lately that an access token of theirs may still be alive."""
        async with self._store.reading() as transaction:
            lifetime = max(timedelta(seconds=token_seconds), REMEMBERED)
            since = await transaction.now() - lifetime - CLOCK_MARGIN
            rows = await transaction.rows(select(_family.c.family).where(_family.c.revoked_at > since))
        return frozenset(row.family for row in rows)

    async def _confirm(self, connection_id: int) -> None:
        async with self._store.transaction() as transaction:
            confirmed = await transaction.row(
                update(_connection)
                .where(_connection.c.connection_id == connection_id, _connection.c.state == "authorised")
                .values(state="confirmed", confirmed_at=await transaction.now())
                .returning(_connection.c.user_id)
            )
            if confirmed is not None:  # else another request was first
                event = ConnectionChanged(connection_id=connection_id, user_id=confirmed.user_id, state="confirmed")
                await append_events(transaction, [event])

    async def _account(self, query: Any) -> Account | None:
        async with self._store.reading() as transaction:
            row = await transaction.row(query)
        return None if row is None else _as_account(row)


def _as_account(row: Any) -> Account:
    return Account(row.user_id, row.login, row.password_hash, row.created_at)


def _consent(transaction: Transaction, code: NewCode, now: datetime) -> Any:
    """The connection's row, new or again; changes and gives back nothing when it is another user's."""
    again = {
        "state": case((_connection.c.state == "revoked", "authorised"), else_=_connection.c.state),
        "confirmed_at": case((_connection.c.state == "revoked", null()), else_=_connection.c.confirmed_at),
        "revoked_at": null(),
    }
    return (
        insert(transaction, _connection)
        .values(connection_id=code.connection_id, user_id=code.user_id, state="authorised", created_at=now)
        .on_conflict_do_update(
            index_elements=["connection_id"], set_=again, where=_connection.c.user_id == code.user_id
        )
        .returning(_connection.c.connection_id)
    )


async def _refusal(transaction: Transaction, connection_id: int, user_id: str) -> Consent | None:
    query = select(_connection.c.user_id).where(_connection.c.connection_id == connection_id)
    row = await transaction.row(query)
    if row is None or row.user_id == user_id:
        return None
    return Consent.ENDED if row.user_id == NOBODY else Consent.NOT_YOURS


async def _is_user(transaction: Transaction, user_id: str) -> bool:
    """Whether there is such a user; holds the row, so that nobody consents while being erased."""
    query = select(_user.c.user_id).where(_user.c.user_id == user_id).with_for_update(read=True)
    return await transaction.row(query) is not None


async def _is_spent(transaction: Transaction, code: NewCode, now: datetime) -> bool:
    """Whether this very code was used, or its time is over; a fresh one is not there yet."""
    row = await transaction.row(select(_code.c.used_at, _code.c.expires_at).where(_code.c.code_hash == code.code_hash))
    return row is not None and (row.used_at is not None or row.expires_at <= now)


async def _take_back(transaction: Transaction, matches: list[Any], now: datetime) -> None:
    used = [*matches, _code.c.used_at.is_not(None)]
    row = await transaction.row(select(_code.c.family, _code.c.connection_id).where(*used))
    if row is not None and row.family is not None:
        await revoke_family(transaction, row.family, now)
        log.warning("oauth.code_reused", connection_id=row.connection_id)


async def _is_live(transaction: Transaction, connection_id: int, user_id: str) -> bool:
    """Whether the connection may get tokens; holds its row, so that a revocation comes wholly before or after.

    With a lock that lets workers write what they read of the connection.
    """
    row = await transaction.row(
        select(_connection.c.user_id, _connection.c.state)
        .where(_connection.c.connection_id == connection_id)
        .with_for_update(key_share=True)
    )
    return row is not None and row.state != "revoked" and row.user_id == user_id


async def _locked_family(transaction: Transaction, family: str) -> Any | None:
    """The family's row; the connection's is locked first, as a revocation does it, so that nobody waits in a circle.

    A revoked connection has no family that is not revoked.
    """
    of_family = select(_family.c.connection_id).where(_family.c.family == family).scalar_subquery()
    connection = select(_connection.c.state).where(_connection.c.connection_id == of_family)
    await transaction.row(connection.with_for_update(key_share=True))
    return await transaction.row(select(_family).where(_family.c.family == family).with_for_update())


async def _locations(transaction: Transaction, user_id: str) -> list[Location]:
    query = select(_inventory.c.body).where(_inventory.c.user_id == user_id).order_by(_inventory.c.location_id)
    return [restored(row.body) for row in await transaction.rows(query)]
