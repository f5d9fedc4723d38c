"""Rows of connections that are to be resynced after an outage, and of the last beat of any ingress."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, bindparam, delete, exists, literal, or_, select, update

from common.store.engine import Store, Transaction
from common.store.insert import insert
from ingress.outages.rules import was_away
from schemas.tables import BeatRow, ConnectionRow, FeedRow, RefusedRow, UtcDateTime, table_of

LEASE = timedelta(seconds=60)
INGRESS = "ingress"

_refused = table_of(RefusedRow)
_beat = table_of(BeatRow)
_feed = table_of(FeedRow)
_connection = table_of(ConnectionRow)


@dataclass(frozen=True)
class Missed:
    """An outage of the ingress: how long there was no beat, and how many connections are to be resynced."""

    gap: timedelta
    connections: int


class OutageStore:
    """Values in and out; every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def keep(self, connections: Collection[int]) -> datetime:
        """Write down that webhooks of these were refused; since when, as it is written."""
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            statement = insert(transaction, _refused)
            changed = {"since": statement.excluded.since}
            await transaction.execute(
                statement.on_conflict_do_update(index_elements=["connection_id"], set_=changed),
                [{"connection_id": one, "since": now} for one in sorted(connections)],
            )
            return now

    async def adopt(self, limit: int) -> dict[int, datetime]:
        """Connections that nobody is publishing, and since when they are there: they are the caller's for a minute."""
        async with self._store.reading() as transaction:
            if await transaction.row(select(_refused).where(_free(await transaction.now())).limit(1)) is None:
                return {}
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            query = select(_refused).where(_free(now)).order_by(_refused.c.connection_id).limit(limit)
            rows = await transaction.rows(query.with_for_update(skip_locked=True))
            found = {row.connection_id: row.since for row in rows}
            mine = _refused.c.connection_id.in_(found)
            await transaction.execute(update(_refused).where(mine).values(lease_until=now + LEASE))
            return found

    async def drop(self, settled: Mapping[int, datetime]) -> None:
        """Forget these, unless they were refused again since."""
        statement = delete(_refused).where(
            _refused.c.connection_id == bindparam("settled"),
            _refused.c.since <= bindparam("until", type_=UtcDateTime()),
        )
        async with self._store.transaction() as transaction:
            values = [{"settled": one, "until": settled[one]} for one in sorted(settled)]
            await transaction.execute(statement, values)

    async def keep_everyone(self) -> int:
        """Write down every connection that is known and not revoked; how many there are."""
        async with self._store.transaction() as transaction:
            return await _keep_everyone(transaction, await transaction.now())

    async def beat(self, served: timedelta) -> Missed | None:
        """Write down that this ingress is there, and everyone when none was (`was_away`): both or nothing."""
        async with self._store.transaction() as transaction:
            row = await transaction.row(select(_beat).where(_beat.c.name == INGRESS).with_for_update())
            now = await transaction.now()
            gap = None if row is None else now - row.at
            missed = None
            if gap is not None and was_away(gap, served):
                missed = Missed(gap, await _keep_everyone(transaction, now))
            statement = insert(transaction, _beat).values(name=INGRESS, at=now)
            await transaction.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"at": now}))
            return missed


def _free(now: datetime) -> ColumnElement[bool]:
    return or_(_refused.c.lease_until.is_(None), _refused.c.lease_until < now)


async def _keep_everyone(transaction: Transaction, now: datetime) -> int:
    revoked = exists().where(_connection.c.connection_id == _feed.c.connection_id, _connection.c.state == "revoked")
    known = (
        select(_feed.c.connection_id, literal(now, UtcDateTime())).where(~revoked).order_by(_feed.c.connection_id)
    )  # in one order, as everywhere
    statement = insert(transaction, _refused).from_select(["connection_id", "since"], known)
    changed = {"since": statement.excluded.since, "lease_until": None}
    result = await transaction.execute(statement.on_conflict_do_update(index_elements=["connection_id"], set_=changed))
    return result.rowcount
