"""The numbers of the flow, read in one transaction and judged by the store's clock alone.

Every query is bounded: by an index, by a minute, or by `BOUND` rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, exists, false, func, select

from common.store.engine import Store, Transaction
from common.store.turns import PUT_OFF, RESYNC
from ingress.flow.flow import (
    ApiBudget,
    Attempts,
    Events,
    Flow,
    GrantFlow,
    Held,
    ParkedGroup,
    Silence,
    Targets,
    Waiting,
)
from schemas.events import ListingChanged
from schemas.tables import (
    SYNCAROO_ACCOUNT,
    AttemptRow,
    BudgetRow,
    ConnectionRow,
    EventRow,
    FeedRow,
    GrantRow,
    ListingRow,
    ParkedRow,
    SuspectRow,
    TargetRow,
    table_of,
)

BOUND = 100_000
"""How many rows are counted at most."""
SHOWN = 100
MINUTE = timedelta(minutes=1)
CHUNK = 1000
CHUNKS = 60
AHEAD = 5000
"""The relay publishes among so many of the oldest unpublished events; whatever lies behind them is not published."""
CHANGES = ("created", "updated", "deleted")

_target = table_of(TargetRow)
_attempt = table_of(AttemptRow)
_listing = table_of(ListingRow)
_event = table_of(EventRow)
_parked = table_of(ParkedRow)
_suspect = table_of(SuspectRow)
_grant = table_of(GrantRow)
_connection = table_of(ConnectionRow)
_feed = table_of(FeedRow)
_budget = table_of(BudgetRow)


class FlowStore:
    """What flows and what waits."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self) -> Flow:
        """All of it, as it is now.

        Raises:
            StoreUnavailable: the store is away.
        """
        async with self._store.reading() as transaction:
            now = await transaction.now()
            return Flow(
                at=now,
                targets=await _targets(transaction, now),
                attempts=await _attempts(transaction, now),
                listings=await count_of(transaction, live_listings().limit(BOUND)),
                events=await _events(transaction, now),
                parked=await _parked_groups(transaction, now),
                held=await _held(transaction),
                grant=await _grant_flow(transaction, now),
                connections=await connections_by_state(transaction),
                silence=await _silence(transaction, now),
                budgets=await _budgets(transaction, now),
            )


def live_listings() -> Select[Any]:
    """Listings that are there."""
    return select(_listing.c.listing_id).where(_listing.c.deleted == false(), _listing.c.version > 0)


def unpublished_events() -> Select[Any]:
    """Events that have not left."""
    return select(_event.c.position).where(_event.c.published_at.is_(None))


def held_listings() -> Select[Any]:
    """Listings that may have vanished, about which a person decides."""
    return select(_suspect.c.connection_id).where(_suspect.c.state == "held")


def is_revoked(connection_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether the connection with that number has ended."""
    return exists().where(_connection.c.connection_id == connection_id, _connection.c.state == "revoked")


async def count_of(transaction: Transaction, query: Select[Any]) -> int:
    """How many rows a query gives."""
    return int((await transaction.execute(select(func.count()).select_from(query.subquery()))).scalar_one())


async def connections_by_state(transaction: Transaction) -> dict[str, int]:
    """How many connections there are, by state."""
    query = select(_connection.c.state, func.count().label("found")).group_by(_connection.c.state)
    return {row.state: row.found for row in await transaction.rows(query)}


async def _targets(transaction: Transaction, now: datetime) -> Targets:
    put_off = and_(_target.c.turn == PUT_OFF, _target.c.not_before > now)
    kind = case((put_off, "put_off"), (_target.c.priority < RESYNC, "webhook"), else_="resync")
    due = select(kind.label("kind"), _target.c.asked_at, _target.c.wanted, _target.c.not_before)
    due = due.where(_target.c.wanted > _target.c.answered, ~is_revoked(_target.c.connection_id))
    some = due.limit(BOUND).subquery()
    columns = {"asked_at": some.c.asked_at, "wanted": some.c.wanted, "not_before": some.c.not_before}
    oldest = [func.min(column).label(name) for name, column in columns.items()]
    query = select(some.c.kind, func.count().label("found"), *oldest).group_by(some.c.kind)
    found = {row.kind: row for row in await transaction.rows(query)}
    waits = {kind: _waiting(row.found, _seconds(now, row.asked_at)) for kind, row in found.items()}
    if resync := found.get("resync"):
        waits["resync"] = _waiting(resync.found, await _seconds_since_number(transaction, now, resync.wanted))
    next_at = found["put_off"].not_before if "put_off" in found else None
    return Targets(**waits, next_seconds=None if next_at is None else (next_at - now).total_seconds())


async def _seconds_since_number(transaction: Transaction, now: datetime, number: int) -> float | None:
    """How long ago a number of the store's was taken, at the least: since the first event that has a later one."""
    query = select(_event.c.created_at).where(_event.c.position > number).order_by(_event.c.position).limit(1)
    row = await transaction.row(query)
    return None if row is None else _seconds(now, row.created_at)


async def _attempts(transaction: Transaction, now: datetime) -> Attempts:
    query = select(_attempt.c.outcome, _attempt.c.status, func.count().label("found"))
    query = query.where(_attempt.c.at > now - MINUTE).group_by(_attempt.c.outcome, _attempt.c.status)
    outcomes, statuses = Counter[str](), Counter[str]()
    for row in await transaction.rows(query):
        outcomes[row.outcome] += row.found
        statuses[f"{row.status // 100}xx" if row.status else "none"] += row.found
    return Attempts(by_outcome=dict(outcomes), by_status=dict(statuses))


async def _events(transaction: Transaction, now: datetime) -> Events:
    oldest = select(_event.c.created_at).where(_event.c.published_at.is_(None)).order_by(_event.c.position).limit(1)
    first = await transaction.row(oldest)
    count = await count_of(transaction, unpublished_events().limit(BOUND))
    return Events(
        unpublished=_waiting(count, None if first is None else _seconds(now, first.created_at)),
        published_last_minute=await _published(transaction, now),
        changes_last_minute=await _changes(transaction, now),
    )


async def _published(transaction: Transaction, now: datetime) -> int:
    """From the newest that may have been published back to where none was in the last minute."""
    ahead = await transaction.row(unpublished_events().order_by(_event.c.position).offset(AHEAD).limit(1))
    below: int | None = None if ahead is None else ahead.position
    query = select(_event.c.position, _event.c.published_at).where(_event.c.published_at.is_not(None))
    query = query.order_by(_event.c.position.desc()).limit(CHUNK)
    found = 0
    for _ in range(CHUNKS):
        rows = await transaction.rows(query if below is None else query.where(_event.c.position < below))
        recent = sum(row.published_at > now - MINUTE for row in rows)
        found += recent
        if len(rows) < CHUNK or not recent:
            break
        below = rows[-1].position
    return found


async def _changes(transaction: Transaction, now: datetime) -> dict[str, int]:
    said = [(_event.c.headers.contains(f'"change":"{change}"'), change) for change in CHANGES]
    change = case(*said, else_="other").label("change")
    query = select(change, func.count().label("found")).group_by(change)
    query = query.where(_event.c.created_at > now - MINUTE, _event.c.type == ListingChanged.TYPE)
    return {row.change: row.found for row in await transaction.rows(query)}


async def _parked_groups(transaction: Transaction, now: datetime) -> list[ParkedGroup]:
    some = select(_parked.c.queue, _parked.c.reason, _parked.c.parked_at).limit(BOUND).subquery()
    oldest = func.min(some.c.parked_at).label("oldest")
    query = select(some.c.queue, some.c.reason, func.count().label("found"), oldest)
    rows = await transaction.rows(query.group_by(some.c.queue, some.c.reason).order_by(some.c.queue, some.c.reason))
    return [
        ParkedGroup(queue=row.queue, reason=row.reason, count=row.found, oldest_seconds=_seconds(now, row.oldest))
        for row in rows
    ]


async def _held(transaction: Transaction) -> Held:
    some = held_listings().limit(BOUND).subquery()
    found = func.count().label("found")
    query = select(some.c.connection_id, found).group_by(some.c.connection_id).order_by(found.desc())
    rows = await transaction.rows(query)
    shown = {str(row.connection_id): row.found for row in rows[:SHOWN]}
    return Held(count=sum(row.found for row in rows), by_connection=shown)


async def _grant_flow(transaction: Transaction, now: datetime) -> GrantFlow:
    row = await transaction.row(select(_grant).where(_grant.c.account == SYNCAROO_ACCOUNT))
    if row is None:
        return GrantFlow()
    leased = row.lease_owner is not None and row.lease_until is not None and row.lease_until > now
    return GrantFlow(
        state=row.state,
        expires_in_seconds=None if row.expires_at is None else (row.expires_at - now).total_seconds(),
        refresh_in_seconds=None if row.refresh_at is None else (row.refresh_at - now).total_seconds(),
        renewing=leased,
        attempts=row.attempts,
        last_error=row.last_error,
    )


async def _silence(transaction: Transaction, now: datetime) -> Silence:
    lives = ~is_revoked(_feed.c.connection_id)
    heard = select(_feed.c.connection_id, _feed.c.heard_at).where(_feed.c.heard_at.is_not(None), lives)
    rows: Sequence[Any] = await transaction.rows(heard.order_by(_feed.c.heard_at).limit(SHOWN))
    quiet = {str(row.connection_id): _seconds(now, row.heard_at) for row in rows}
    unusual = select(_feed.c.connection_id).where(_feed.c.silent_since.is_not(None), lives)
    return Silence(
        longest_seconds=max(quiet.values(), default=None),
        by_connection=quiet,
        unusual=await count_of(transaction, unusual),
    )


async def _budgets(transaction: Transaction, now: datetime) -> dict[str, ApiBudget]:
    rows = await transaction.rows(select(_budget).order_by(_budget.c.host).limit(SHOWN))
    return {
        row.host: ApiBudget(
            tokens=row.tokens,
            blocked_seconds=0.0 if row.blocked_until is None else max(0.0, (row.blocked_until - now).total_seconds()),
        )
        for row in rows
    }


def _waiting(count: int, oldest_seconds: float | None) -> Waiting:
    return Waiting(count=count, oldest_seconds=oldest_seconds)


def _seconds(now: datetime, since: datetime | None) -> Any:
    return None if since is None else max(0.0, (now - since).total_seconds())
