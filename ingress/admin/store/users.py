"""Users: who may connect."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from common.store.engine import Store
from common.store.insert import insert
from ingress.admin.rules import Paging, UserChange
from schemas.tables import UserRow, table_of

_user = table_of(UserRow)


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

    async def password_hash(self, user_id: str) -> str | None:
        """What is kept of their password; None where there is none."""
        async with self._store.reading() as transaction:
            row = await transaction.row(select(_user.c.password_hash).where(_user.c.user_id == user_id))
        return None if row is None else row.password_hash

    async def user(self, user_id: str) -> User | None:
        """One user."""
        async with self._store.reading() as transaction:
            row = await transaction.row(select(_user).where(_user.c.user_id == user_id))
        return None if row is None else _shown(row)

    async def users(self, paging: Paging) -> list[User]:
        """Users by id, after the cursor's."""
        query = select(_user).order_by(_user.c.user_id).limit(paging.limit)
        if paging.after is not None:
            query = query.where(_user.c.user_id > paging.after[0])
        async with self._store.reading() as transaction:
            return [_shown(row) for row in await transaction.rows(query)]


def _shown(row: Any) -> User:
    return User(user_id=row.user_id, login=row.login)
