"""Events that were told before, for a replay: which there are, and page by page as they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ColumnElement, Select, case, cast, exists, func, or_, select, type_coerce

from common.store.engine import Store, Transaction
from common.store.erasing import is_being_erased
from schemas.tables import EventRow, table_of
from workers.relay.rules import PendingEvent
from workers.relay.store.pages import PAGE_BYTES, PAGE_ROWS, fitting, size_of

_event = table_of(EventRow)
_earlier = _event.alias("earlier")
_pending = [_event.c[name] for name in PendingEvent.__dataclass_fields__]
_shown = (_event.c.position, _event.c.created_at, _event.c.type, _event.c.subject, _event.c.version)


@dataclass(frozen=True)
class Wanted:
    """Which events: told at `since` or later, before `until`, and as the event said it then of these.

    Any of the values of one filter will do, every filter that has some must fit; a listing is named by its listingId or
    as the subjects of events are, `99/resources/7843`.
    """

    since: datetime
    until: datetime | None = None
    connections: Sequence[int] = ()
    locations: Sequence[str] = ()
    kinds: Sequence[str] = ()
    changes: Sequence[str] = ()
    types: Sequence[str] = ()
    listings: Sequence[str] = ()


@dataclass(frozen=True)
class Count:
    """So many events of one type, kind and change."""

    type: str
    attribute_type: str | None
    change: str | None
    events: int
    unpublished: int


@dataclass(frozen=True)
class Line:
    """What a person is shown of one event."""

    at: datetime
    type: str
    subject: str
    change: str | None
    version: int | None


@dataclass(frozen=True)
class Found:
    """What there is: `last_position` is where a replay ends, whatever is told meanwhile."""

    counts: Sequence[Count]
    first_at: datetime | None
    last_at: datetime | None
    first_position: int
    last_position: int
    lines: Sequence[Line]
    """The first ones and the last one."""
    oldest_at: datetime | None
    """Of all events in the store."""
    pruned: bool = False
    """Whether what is wanted begins before all that is left, and something has been forgotten."""

    @property
    def events(self) -> int:
        """How many there are."""
        return sum(one.events for one in self.counts)

    @property
    def unpublished(self) -> int:
        """How many of them have not been published yet."""
        return sum(one.unpublished for one in self.counts)


@dataclass(frozen=True)
class Told:
    """An event with its place among all events."""

    position: int
    event: PendingEvent


class PastStore:
    """What a replay reads; each method is one transaction, and raises StoreUnavailable.

    Positions grow with the versions of a listing. Events of several listings may be committed in another order: of a
    listing whose earlier event was not there yet when its place was passed, no later one is up to `last_position`.
    """

    def __init__(self, store: Store, *, rows: int = PAGE_ROWS, size: int = PAGE_BYTES) -> None:
        self._store = store
        self._rows = rows
        self._size = size

    async def now(self) -> datetime:
        """The store's clock, by which events are timed."""
        async with self._store.reading() as transaction:
            return await transaction.now()

    async def find(self, wanted: Wanted, lines: int) -> Found:
        """Which there are; `lines` of the first ones are shown."""
        async with self._store.reading() as transaction:
            groups = await transaction.rows(_groups(transaction, wanted))
            oldest = await transaction.row(select(func.min(_event.c.created_at)))
            oldest_at: datetime | None = None if oldest is None else oldest[0]
            begins_before = oldest_at is not None and wanted.since < oldest_at
            pruned = begins_before and await transaction.row(_with_a_gap_before) is not None
            shown = select(*_shown, _header(transaction, "change").label("change")).where(*_fits(transaction, wanted))
            first = await transaction.rows(shown.order_by(_event.c.position).limit(lines))
            last = await transaction.rows(shown.order_by(_event.c.position.desc()).limit(1))
        more = [row for row in last if row.position > (first[-1].position if first else 0)]
        return Found(
            counts=[Count(row.type, row.kind, row.change, row.events, row.unpublished) for row in groups],
            first_at=min((row.first_at for row in groups), default=None),
            last_at=max((row.last_at for row in groups), default=None),
            first_position=min((row.first_position for row in groups), default=0),
            last_position=max((row.last_position for row in groups), default=0),
            lines=[_line(row) for row in (*first, *more)],
            oldest_at=oldest_at,
            pruned=pruned,
        )

    async def page(self, wanted: Wanted, after: int, last: int) -> list[Told]:
        """The next ones behind the position `after`, up to `last`, in order."""
        async with self._store.reading() as transaction:
            fits = _fits(transaction, wanted)
            size = size_of(transaction, _event.c.data)
            keys = await transaction.rows(
                select(_event.c.position, size)
                .where(*fits, _event.c.position > after, _event.c.position <= last)
                .order_by(_event.c.position)
                .limit(self._rows)
            )
            if not keys:
                return []
            end = keys[fitting([key[1] for key in keys], self._size) - 1][0]
            rows = await transaction.rows(
                select(_event.c.position, *_pending)
                .where(*fits, _event.c.position > after, _event.c.position <= end)
                .order_by(_event.c.position)
            )
        return [_told(row) for row in rows]

    async def earliest(self, wanted: Wanted, after: int, last: int) -> datetime | None:
        """When the earliest of those behind `after` was told: where a replay that broke off goes on."""
        async with self._store.reading() as transaction:
            row = await transaction.row(
                select(func.min(_event.c.created_at)).where(
                    *_fits(transaction, wanted), _event.c.position > after, _event.c.position <= last
                )
            )
        found: datetime | None = None if row is None else row[0]
        return found


_with_a_gap_before = (
    select(_event.c.event_id)
    .where(
        _event.c.version > 1,
        ~exists().where(
            _earlier.c.connection_id == _event.c.connection_id,
            _earlier.c.listing_id == _event.c.listing_id,
            _earlier.c.version == _event.c.version - 1,
        ),
    )
    .limit(1)
)
"""Versions grow by one: only pruning makes gaps."""


def _groups(transaction: Transaction, wanted: Wanted) -> Select[Any]:
    kind, change = _header(transaction, "attributeType").label("kind"), _header(transaction, "change").label("change")
    columns = (_event.c.type, kind, change)
    return (
        select(
            *columns,
            func.count().label("events"),
            func.sum(case((_event.c.published_at.is_(None), 1), else_=0)).label("unpublished"),
            func.min(_event.c.created_at).label("first_at"),
            func.max(_event.c.created_at).label("last_at"),
            func.min(_event.c.position).label("first_position"),
            func.max(_event.c.position).label("last_position"),
        )
        .where(*_fits(transaction, wanted))
        .group_by(*columns)
        .order_by(*columns)
    )


def _fits(transaction: Transaction, wanted: Wanted) -> list[ColumnElement[bool]]:
    until = [] if wanted.until is None else [_event.c.created_at < wanted.until]
    filters: tuple[tuple[ColumnElement[Any], Sequence[Any]], ...] = (
        (_event.c.connection_id, wanted.connections),
        (_event.c.type, wanted.types),
        (_header(transaction, "locationId"), wanted.locations),
        (_header(transaction, "attributeType"), wanted.kinds),
        (_header(transaction, "change"), wanted.changes),
    )
    named: list[ColumnElement[bool]] = [column.in_(values) for column, values in filters if values]
    if wanted.listings:
        named.append(or_(_event.c.listing_id.in_(wanted.listings), _event.c.subject.in_(wanted.listings)))
    kept = ~is_being_erased(_event.c.connection_id)
    return [_event.c.created_at >= wanted.since, kept, *until, *named]


def _header(transaction: Transaction, name: str) -> ColumnElement[str]:
    """A header, as the event has it; null: it has none."""
    # SQLite reads JSON from text as it is; there a cast would make a number of it.
    headers = cast(_event.c.headers, JSON) if transaction.postgres else type_coerce(_event.c.headers, JSON)
    found: ColumnElement[str] = headers[name].as_string()
    return found


def _line(row: Any) -> Line:
    return Line(row.created_at, row.type, row.subject, row.change, row.version)


def _told(row: Any) -> Told:
    values = dict(row._mapping)
    return Told(position=values.pop("position"), event=PendingEvent(**values))
