"""URLs that were ever wanted: how each one stands, and the attempts to answer it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Select, and_, or_, select

from common.ids import made_at
from common.store.engine import Store, Transaction
from ingress.admin.rules import Paging, TargetFilter
from schemas.tables import AttemptRow, BudgetRow, TargetRow, table_of

_target = table_of(TargetRow)
_attempt = table_of(AttemptRow)
_budget = table_of(BudgetRow)


class Target(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A URL of a connection. `state`: due (a worker takes it up next), waiting (until `not_before`), fetching (until
    it is answered, or `lease_until` at the latest), resting (nobody wants it, until `recheck_at` if there is one).
    """

    connection_id: int
    url: str
    state: Literal["due", "waiting", "fetching", "resting"]
    reason: str
    delivery_id: str | None
    wanted: int
    asked: int
    asked_at: datetime | None
    started: int
    answered: int
    attempts: int
    not_before: datetime | None
    recheck_at: datetime | None
    lease_until: datetime | None
    host_blocked_until: datetime | None
    last_status: int | None
    last_error: str | None


class Attempt(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag="attempt", tag_field="kind"):
    """One attempt to answer a target: the numbers `started` and `ended` enclose those of the answers it got."""

    connection_id: int
    url: str
    reason: str
    """webhook, second_look, resync, hand."""
    delivery_id: str | None
    received_at: datetime | None
    """When the latest webhook that it answers was received, by the ingress' clock."""
    asked: int
    asked_at: datetime | None
    """When that webhook was taken up, if it is still the latest one for the URL."""
    attempt: int
    """How many failed right before it."""
    started: int
    ended: int
    outcome: str
    """answered, gone, put_off, parked, gave_up."""
    status: int | None
    pages: int
    detail: str | None
    at: datetime


class TargetStore:
    """Targets and their attempts; every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def targets(self, wanted: TargetFilter, paging: Paging) -> list[Target]:
        """Targets by connection and URL, after the cursor's."""
        key = (_target.c.connection_id, _target.c.url)
        query = select(_target, _budget.c.blocked_until).join_from(
            _target, _budget, _budget.c.host == _target.c.host, isouter=True
        )
        if wanted.connection_id is not None:
            query = query.where(_target.c.connection_id == wanted.connection_id)
        if wanted.path is not None:
            query = query.where(_ends_with(wanted.path, wanted.url))
        if paging.after is not None:
            connection_id, url = paging.after
            later = and_(_target.c.connection_id == connection_id, _target.c.url > url)
            query = query.where(or_(_target.c.connection_id > connection_id, later))
        async with self._store.reading() as transaction:
            now = await transaction.now()
            rows = await transaction.rows(query.order_by(*key).limit(paging.limit))
            return [_target_of(row, now) for row in rows]

    async def attempts(self, connection_id: int, path: str, paging: Paging) -> list[Attempt]:
        """Attempts for the URLs of a path, the newest first."""
        async with self._store.reading() as transaction:
            return await attempts_at(transaction, connection_id, [path], paging)


async def attempts_at(
    transaction: Transaction, connection_id: int, paths: Sequence[str], paging: Paging
) -> list[Attempt]:
    """Attempts for the URLs of these paths, the newest first, before the cursor's number."""
    rows: list[Any] = []
    for path in paths:  # one after another: each is a part of the index, from its end
        query = _attempts(connection_id, path).order_by(_attempt.c.started.desc()).limit(paging.limit)
        if paging.after is not None:
            query = query.where(_attempt.c.started < paging.after[0])
        rows += await transaction.rows(query)
    rows.sort(key=lambda row: row.started, reverse=True)
    return [_attempt_of(row) for row in rows[: paging.limit]]


def _attempts(connection_id: int, path: str) -> Select[Any]:
    same = and_(
        _target.c.connection_id == _attempt.c.connection_id,
        _target.c.url == _attempt.c.url,
        _target.c.asked == _attempt.c.asked,
    )
    return (
        select(_attempt, _target.c.asked_at)
        .join_from(_attempt, _target, same, isouter=True)
        .where(_attempt.c.connection_id == connection_id, _attempt.c.path == path)
    )


def _ends_with(path: str, url: str) -> ColumnElement[bool]:
    """URLs of a path. One that spells it in an odd way is only found as it is spelled itself."""
    column = _target.c.url
    ends = [column.endswith(f"{path}{slash}", autoescape=True) for slash in ("", "/")]
    queries = [column.contains(f"{path}{slash}?", autoescape=True) for slash in ("", "/")]
    return or_(column == url, *ends, *queries)


def _target_of(row: Any, now: datetime) -> Target:
    shared = {name: getattr(row, name) for name in Target.__struct_fields__ if name in _target.c}
    return Target(**shared, state=_state(row, now), host_blocked_until=row.blocked_until)


def _state(row: Any, now: datetime) -> Literal["due", "waiting", "fetching", "resting"]:
    if row.lease_until is not None and row.lease_until > now:
        return "fetching"
    if row.wanted <= row.answered:
        return "resting"
    return "waiting" if row.not_before is not None and row.not_before > now else "due"


def _attempt_of(row: Any) -> Attempt:
    shared = {name: getattr(row, name) for name in Attempt.__struct_fields__ if name in _attempt.c}
    received_at = made_at(row.delivery_id) if row.delivery_id else None
    return Attempt(**shared, received_at=received_at, asked_at=row.asked_at)
