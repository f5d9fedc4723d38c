"""Which targets may be asked for now, in the order in which they are claimed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, exists, literal, or_, select, union_all

from common.store.turns import PUT_OFF, RESYNC, RESYNC_ITEM, WEBHOOK
from schemas.tables import ConnectionRow, TargetRow, table_of

_target = table_of(TargetRow)
_collection = _target.alias()
_connection = table_of(ConnectionRow)
_NOW = bindparam("now", type_=_target.c.lease_until.type)


@dataclass(frozen=True)
class Line:
    """Due targets of one kind, in order; second looks have no turns."""

    query: Any
    resync: bool = False
    second_look: bool = False


def at(now: datetime) -> dict[str, Any]:
    """The values of the queries here."""
    return {"now": now}


def _in_turn(priority: int) -> Any:
    query = _rested().where(_target.c.wanted > _target.c.answered, _target.c.priority == priority)
    return query.where(_target.c.turn > PUT_OFF).order_by(_target.c.turn)


def _second_looks() -> Any:
    query = _rested().where(_target.c.recheck_at <= _NOW, _target.c.wanted <= _target.c.answered)
    return query.order_by(_target.c.recheck_at)


def _rested() -> Any:
    return _free().where(or_(_target.c.not_before.is_(None), _target.c.not_before <= _NOW))


def _free() -> Any:
    revoked = exists().where(_connection.c.connection_id == _target.c.connection_id, _connection.c.state == "revoked")
    return select(_target).where(or_(_target.c.lease_until.is_(None), _target.c.lease_until <= _NOW)).where(~revoked)


def _reading_collections() -> Any:
    """The connections of which a collection waits for its first attempt of a resync, or is in it."""
    return (
        select(_collection.c.connection_id)
        .where(_collection.c.wanted > _collection.c.answered, _collection.c.priority == RESYNC)
        .where(_collection.c.attempts == 0)
        .distinct()
    )


# Built once: that takes longer than it takes to ask.
LINES = (
    Line(_in_turn(WEBHOOK)),
    Line(_second_looks(), second_look=True),
    Line(_in_turn(RESYNC), resync=True),
    Line(_in_turn(RESYNC_ITEM).where(_target.c.connection_id.not_in(_reading_collections())), resync=True),
)
"""All that is due: webhooks, second looks, then what a resync reads: collections before the items in them."""
COME_BACK = _free().where(
    _target.c.wanted > _target.c.answered,
    _target.c.turn == PUT_OFF,
    _target.c.not_before <= _NOW,  # not null, and found by the index alone, however many wait
)
"""The targets that were put off and whose time has come; they have no turn yet."""


def any_of(queries: Sequence[Any]) -> Any:
    """Whether one of the queries finds anything, asked one after another until one does."""
    looks = [select(literal(1)).select_from(query.limit(1).subquery()) for query in queries]
    return union_all(*looks).limit(1)


ANYTHING = any_of([*(line.query for line in LINES), COME_BACK])
BEHIND = any_of([line.query for line in LINES[1:]])
"""All that is due behind the webhooks: nearly always nothing."""
