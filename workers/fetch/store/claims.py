"""Claiming: what is due is leased in turn, by the store's clock, with a share of the API budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, update

from common.clock import monotonic_seconds
from common.store.engine import Store, Transaction
from common.store.turns import Latest
from schemas.messages import PlatformIds
from schemas.tables import TargetRow, table_of
from workers.fetch.claim import Claim, Grant
from workers.fetch.pacing import Purse, Room, interleaved
from workers.fetch.store.budget import open_purse, read_purse, shut_purse
from workers.fetch.store.due import ANYTHING, BEHIND, LINES, Line, at
from workers.fetch.store.grants import valid_grant
from workers.fetch.store.lining_up import line_up
from workers.fetch.store.setback import set_right
from workers.fetch.walk import Walk, resumed

LEASE = timedelta(seconds=15)
WALK_AGE = timedelta(minutes=10)
LATE = 10
"""How many turns a connection may lag behind, as it had no room for a while, before it shares with the others."""
LOOK_SECONDS = 1.0
"""So often the store's clock is looked at."""
AHEAD = 1000
"""How many turns ahead the others are looked for: their next ones are not far, and a scan has an end."""

_target = table_of(TargetRow)


@dataclass
class _Claiming:
    """One claim: its time, what it may still take, and what it took."""

    now: datetime
    room: Room
    purse: Purse
    claimed: Latest
    late_first: bool
    claims: list[Claim] = field(default_factory=list)

    def take(self, rows: Sequence[Any], *, resync: bool) -> list[Any]:
        """Those of the rows for which there is room and budget."""
        taken = []
        for row in rows:
            if self.room.has(row.connection_id) and self.purse.take(row.host, resync=resync):
                self.room.take(row.connection_id)
                taken.append(row)
        return taken


class ClaimStore:
    """Targets that this process (`owner`) may ask for; `rate` is calls per second of all processes together.

    What was put off comes back to its line at most `line_up_every` seconds late.
    """

    def __init__(
        self, store: Store, owner: str, *, rate: float, interval: timedelta, line_up_every: float = 0.0
    ) -> None:
        self._store = store
        self._owner = owner
        self._rate = rate
        self._interval = interval
        self._late_first = False
        self._line_up_every = line_up_every
        self._line_up_at = 0.0
        self._look_at = 0.0

    async def anything_due(self) -> bool:
        """Whether a claim may find something; cheap, and waits for no writer, save for a look at the clock."""
        await self._look_at_the_clock()
        async with self._store.reading() as transaction:
            now = await transaction.now()
            if await transaction.row(ANYTHING, at(now)) is None:
                return False
            if await valid_grant(transaction, now) is None:
                return False
            return not (await read_purse(transaction, self._rate, now)).empty()

    async def claim(
        self, limit: int, *, running: Mapping[int, int] | None = None, cap: int | None = None
    ) -> tuple[list[Claim], Grant | None]:
        """Lease up to `limit` due targets, as many as their hosts' budgets allow; none without a valid token.

        Of one connection no more than `cap` are fetched at once here, of which so many (`running`) are already.
        """
        await self._look_at_the_clock()
        await self._line_up()
        self._late_first = not self._late_first
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            grant = await valid_grant(transaction, now)
            if grant is None:
                return [], None
            purse, claimed = await open_purse(transaction, self._rate, now)
            claiming = _Claiming(now, Room(limit, cap, running), purse, claimed, self._late_first)
            first, *behind = LINES
            await self._take(transaction, claiming, first)
            if claiming.room.free and await transaction.row(BEHIND, at(now)):
                for line in behind:
                    await self._take(transaction, claiming, line)
            await shut_purse(transaction, purse, {claim.host for claim in claiming.claims}, claimed)
            return claiming.claims, grant

    async def _look_at_the_clock(self) -> None:
        if monotonic_seconds() >= self._look_at:
            await set_right(self._store)
            self._look_at = monotonic_seconds() + LOOK_SECONDS

    async def _line_up(self) -> None:
        if monotonic_seconds() >= self._line_up_at:
            await line_up(self._store)
            self._line_up_at = monotonic_seconds() + self._line_up_every

    async def renew(self, claims: Sequence[Claim]) -> None:
        """Keep the leases of these claims, as far as they have not run out."""
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            kept = self._held().where(_target.c.lease_until > now).values(lease_until=now + LEASE)
            await transaction.execute(kept, _in_order(claims))

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give claims back unanswered: another process may take them at once."""
        async with self._store.transaction() as transaction:
            await transaction.execute(self._held().values(lease_owner=None, lease_until=None), _in_order(claims))

    def _held(self) -> Any:
        return _at_key().where(_target.c.started == bindparam("key_started"), _target.c.lease_owner == self._owner)

    async def _take(self, transaction: Transaction, claiming: _Claiming, line: Line) -> None:
        """Claim along one line, past whatever has no room or no budget."""
        while claiming.room.free and not claiming.purse.empty(resync=line.resync):
            rows = await _next_rows(transaction, claiming, line)
            taken = claiming.take(rows, resync=line.resync)
            if taken:
                claiming.claims += await self._lease(transaction, taken, line, claiming.now)
                if not line.second_look:
                    claiming.claimed.move(max(row.turn for row in taken), resync=line.resync)
            if len(taken) == len(rows):
                return

    async def _lease(self, transaction: Transaction, rows: Sequence[Any], line: Line, now: datetime) -> list[Claim]:
        numbers = await transaction.numbers(len(rows))
        claims = [_claim(row, number, line.second_look, now) for row, number in zip(rows, numbers, strict=True)]
        # A dead worker's second look is taken up again; a resync may come too early to stand for one.
        leased = _at_key().values(
            started=bindparam("key_started"),
            lease_owner=self._owner,
            lease_until=now + LEASE,
            not_before=now + self._interval,
            **({} if line.resync else {"recheck_at": now + LEASE if line.second_look else None}),
        )
        await transaction.execute(leased, _in_order(claims))
        return claims


async def _next_rows(transaction: Transaction, claiming: _Claiming, line: Line) -> Sequence[Any]:
    """What comes next in the line; a connection that lags far behind shares with the others, half and half."""
    latest = claiming.claimed.of(resync=line.resync)
    query = line.query.limit(claiming.room.free).with_for_update(skip_locked=True, of=_target)
    if spent := claiming.purse.spent(resync=line.resync):
        query = query.where(_target.c.host.not_in(spent))
    full = claiming.room.full()
    now = at(claiming.now)
    if line.second_look:
        return await transaction.rows(query.where(_target.c.connection_id.not_in(full)), now)
    near = query.where(_target.c.turn <= latest + AHEAD)
    rows = await transaction.rows(near.where(_target.c.connection_id.not_in(full)) if full else query, now)
    late = {row.connection_id for row in rows if row.turn < latest - LATE}
    if not late:
        return rows
    others = await transaction.rows(near.where(_target.c.connection_id.not_in([*full, *late])), now)
    return interleaved(rows, others) if claiming.late_first else interleaved(others, rows)


def _at_key() -> Any:
    return update(_target).where(
        _target.c.connection_id == bindparam("key_connection"), _target.c.url == bindparam("key_url")
    )


def _in_order(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Keys of targets in the order in which all lock them."""
    keys = [(claim.connection_id, claim.url, claim.started) for claim in claims]
    return [{"key_connection": one, "key_url": url, "key_started": started} for one, url, started in sorted(keys)]


def _claim(row: Any, started: int, second_look: bool, now: datetime) -> Claim:
    by_webhook = second_look or row.reason == "webhook"
    return Claim(
        connection_id=row.connection_id,
        url=row.url,
        host=row.host,
        mapping=PlatformIds(**{name: getattr(row, name) for name in PlatformIds.__struct_fields__}),
        reason="webhook" if by_webhook else row.reason,
        delivery_id=row.delivery_id if by_webhook else None,
        traces=tuple((row.traceparent or "").split()) if by_webhook else (),
        started=started,
        asked=row.asked,
        attempts=row.attempts,
        second_look=second_look,
        last_status=row.last_status,
        walk=_walk_of(row, now),
    )


def _walk_of(row: Any, now: datetime) -> Walk | None:
    """The walk to go on with: an older one has missed too much, and one of the future was kept by another clock."""
    is_young = row.walk_at is not None and now - WALK_AGE < row.walk_at <= now
    return resumed(row.walk, row.wanted) if is_young else None
