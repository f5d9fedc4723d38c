"""Turns: the order in which due targets are claimed, each connection's next one after everybody else's next one.

A target gets its turn from its connection's feed when it becomes due: one after the feed's latest, but none that lies
behind what is being claimed now. So five thousand targets of one connection and one of another alternate, and nobody
saves up turns while it is idle. Webhooks and resyncs have turns of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import bindparam, select, update

from common.store.engine import Transaction
from common.store.erasing import erased_among
from common.store.insert import insert
from schemas.tables import BudgetRow, FeedRow, table_of

WEBHOOK, RESYNC, RESYNC_ITEM = 0, 2, 3
"""Priorities: the smaller is claimed first. Second looks, which come after webhooks, are known by their time."""

PUT_OFF = 0
"""The turn of a due target that waits for its time: it is given one when the time has come."""

_budget = table_of(BudgetRow)
_feed = table_of(FeedRow)
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass
class Latest:
    """The latest turns that were given to a connection, or claimed of anybody: of webhooks, of resyncs."""

    webhook: int = 0
    resync: int = 0

    def of(self, *, resync: bool) -> int:
        """That of one kind."""
        return self.resync if resync else self.webhook

    def move(self, turn: int, *, resync: bool) -> None:
        """Never back."""
        if resync:
            self.resync = max(self.resync, turn)
        else:
            self.webhook = max(self.webhook, turn)


class Turns:
    """Gives turns to the targets of some connections."""

    def __init__(self, claimed: Latest, feeds: Mapping[int, Latest]) -> None:
        self._claimed = claimed
        self._feeds = feeds
        self.given: dict[int, Latest] = {}
        """The latest turns of the connections that were given any."""

    def has(self, connection_id: int) -> bool:
        """Whether the connection has turns: that of an erased user has none."""
        return connection_id in self._feeds

    def next(self, connection_id: int, priority: int) -> int:
        """The next turn of the connection."""
        resync = priority >= RESYNC
        feed = self.given[connection_id] = self._feeds[connection_id]
        feed.move(max(feed.of(resync=resync), self._claimed.of(resync=resync)) + 1, resync=resync)
        return feed.of(resync=resync)


async def lock_feeds(transaction: Transaction, connections: Collection[int]) -> Sequence[Any]:
    """Lock the feeds of these connections, in one order; connections of erased users have none.

    Who makes targets wanted does this before it locks any target, so that nobody waits for another in a circle.
    """
    kept = sorted(set(connections) - await erased_among(transaction, connections))
    if not kept:
        return []
    ordered = [{"connection_id": one, "first_read": False} for one in kept]
    # Before any is locked: who holds one while it waits for another that is new could wait in a circle.
    await transaction.execute(insert(transaction, _feed).on_conflict_do_nothing(), ordered)
    query = select(_feed).where(_feed.c.connection_id.in_(kept))
    return await transaction.rows(query.order_by(_feed.c.connection_id).with_for_update())


async def take_turns(transaction: Transaction, feeds: Sequence[Any], hosts: Collection[str] = ()) -> Turns:
    """The turns of the connections whose feeds these are (`lock_feeds`).

    `hosts` are those of the targets: each has a budget before a claim meets it.
    """
    budgets = await transaction.rows(select(_budget.c.host, _budget.c.turn, _budget.c.resync_turn))
    await _know_hosts(transaction, set(hosts) - {row.host for row in budgets})
    return Turns(claimed_of(budgets), {row.connection_id: Latest(row.turn, row.resync_turn) for row in feeds})


async def keep_turns(transaction: Transaction, turns: Turns) -> None:
    """Write down what was given."""
    given = [{"key": one, "turn": latest.webhook, "resync_turn": latest.resync} for one, latest in turns.given.items()]
    if given:
        statement = update(_feed).where(_feed.c.connection_id == bindparam("key"))
        await transaction.execute(statement.values(turn=bindparam("turn"), resync_turn=bindparam("resync_turn")), given)


def claimed_of(budgets: Sequence[Any]) -> Latest:
    """The latest turns that were claimed, of all hosts."""
    return Latest(
        max((row.turn for row in budgets), default=0),
        max((row.resync_turn for row in budgets), default=0),
    )


async def _know_hosts(transaction: Transaction, hosts: Collection[str]) -> None:
    if hosts:
        # Refilled long ago: the first call finds it full, whatever the rate.
        rows = [{"host": one, "tokens": 0.0, "refilled_at": _LONG_AGO} for one in sorted(hosts)]
        await transaction.execute(insert(transaction, _budget).on_conflict_do_nothing(), rows)
