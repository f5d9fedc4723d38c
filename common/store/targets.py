"""Making targets wanted: by webhooks, resyncs and doubts. Claiming them is the fetch worker's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
from sqlalchemy import and_, bindparam, or_, select, update

from common.identity import place_of
from common.store.engine import Store, Transaction
from common.store.insert import insert
from common.store.turns import PUT_OFF, RESYNC, RESYNC_ITEM, WEBHOOK, Turns, keep_turns, lock_feeds, take_turns
from schemas.messages import PlatformIds, Reason
from schemas.tables import TargetRow, table_of

MARK_CHUNK = 500
"""How many targets of a resync are marked in one transaction: none lasts long enough for anybody to wait."""
MOST_TRACES = 16
"""Of one target: who asks more often than that before there is an answer is told by the latest ones."""
LOCK_CHUNK = 10_000
"""How many targets one statement locks: both databases take some 32,000 values."""

_BELOW = {"locations": "resources", "resources": "rates"}
HAVE_BELOW = _BELOW.keys()
"""The kinds of items that have a collection below them."""

_target = table_of(TargetRow)
_SET = ("host", "wanted", "asked", "asked_at", "delivery_id", "traceparent", "priority", "turn", "reason")
_TOLD = PlatformIds.__struct_fields__
_LOOK_AGAIN = (
    update(_target)
    .where(_target.c.connection_id == bindparam("key_connection"), _target.c.url == bindparam("key_url"))
    .where(_target.c.wanted <= _target.c.started)
    .values(recheck_at=bindparam("at"))
)


@dataclass(frozen=True)
class Wanted:
    """A URL that is wanted, and why; `mapping` holds what is known of the platform's own ids."""

    connection_id: int
    url: str
    mapping: PlatformIds
    reason: Reason
    delivery_id: str | None = None
    traces: tuple[str, ...] = ()
    """The traces that wait for it, the latest first."""


async def want(transaction: Transaction, wanted: Sequence[Wanted], feeds: Sequence[Any] | None = None) -> list[int]:
    """Make targets wanted; a known target keeps its back-off. Gives each one's number, in order.

    Those of erased users' connections are passed over. `feeds` are those of their connections (`lock_feeds`), where the
    caller has locked them: whoever holds a target must not begin to want others.
    """
    if not wanted:
        return []
    latest = _by_target(wanted)
    if feeds is None:
        feeds = await lock_feeds(transaction, {connection_id for connection_id, _ in latest})
    turns = await take_turns(transaction, feeds, {_host(url) for _, url in latest})
    latest = {key: one for key, one in latest.items() if turns.has(one.connection_id)}
    known = await _lock(transaction, sorted(latest))
    # Under the lock: a claim in between would else count as begun after this, and answer without knowing who asked.
    now, numbers = await transaction.stamps(len(wanted))
    number = dict(zip(((one.connection_id, one.url) for one in wanted), numbers, strict=True))
    rows = [_marked(latest[key], known.get(key), number[key], turns, now) for key in sorted(latest)]
    if rows:
        await transaction.execute(_upsert(transaction), rows)
    await keep_turns(transaction, turns)
    return numbers


async def know(transaction: Transaction, wanted: Sequence[Wanted]) -> None:
    """Remember targets for the next resync, without wanting them now."""
    rows = {(one.connection_id, one.url): _named(one, None) | {"reason": "resync"} for one in wanted}
    if rows:
        await transaction.execute(
            insert(transaction, _target).on_conflict_do_nothing(), [rows[one] for one in sorted(rows)]
        )


async def want_known(store: Store, connection_id: int, reason: Reason, location_id: str | None = None) -> int:
    """Make every known target of the connection (or of one of its locations) wanted, and the collections in which
    they lie, behind all webhooks. Gives the number of targets.

    In many short transactions, the collections first. Done again after a crash, it leaves out what still waits.
    """
    known: dict[str, Wanted] = {}
    waiting: set[str] = set()
    after = ""
    while rows := await _known_after(store, connection_id, location_id, after):
        after = rows[-1].url
        waiting |= {row.url for row in rows if _waits(row)}
        for row in rows:
            known[row.url] = Wanted(connection_id, row.url, PlatformIds(), reason)
            mapping = PlatformIds(location_id=row.location_id)
            for url in collections_around(row.url):
                known.setdefault(url, Wanted(connection_id, url, mapping, reason))
    left = sorted((one for one in known.values() if one.url not in waiting), key=lambda one: (_priority(one), one.url))
    for begin in range(0, len(left), MARK_CHUNK):
        async with store.transaction() as transaction:
            await want(transaction, left[begin : begin + MARK_CHUNK])
    return len(known)


async def look_again(transaction: Transaction, looks: Mapping[tuple[int, str], datetime]) -> None:
    """Ask these targets, by connection and URL, once more at their times, unless they are wanted again already.

    The attempt that wants the second look may not have been written down as the answer yet: its page travels faster.
    """
    if not looks:
        return
    rows = [{"key_connection": key[0], "key_url": key[1], "at": looks[key]} for key in sorted(looks)]
    await transaction.execute(_LOOK_AGAIN, rows)


def collections_around(url: str) -> list[str]:
    """The collections that a resync reads for a known URL: those below it, and the one an item lies in.

    Never `/v1/locations` itself: the token is the platform's, and nothing says that the list is filtered.
    """
    place = place_of(url)
    if place.noun in (None, "locations"):
        return collections_below(url)
    return [*collections_below(url), _beside(url, place.scope)]


def collections_below(url: str) -> list[str]:
    """The collections that lie under the item of this URL."""
    place = place_of(url)
    below = _BELOW.get(place.noun or "") if place.segment else None
    return [] if below is None else [_beside(url, f"{place.path}/{below}")]


def _beside(url: str, path: str) -> str:
    """Another path on the URL's host."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _by_target(wanted: Iterable[Wanted]) -> dict[tuple[int, str], Wanted]:
    """Each target once: the latest wish for it, which takes away nothing that an earlier one told."""
    found: dict[tuple[int, str], Wanted] = {}
    for one in wanted:
        key = (one.connection_id, one.url)
        told = _told(found[key].mapping) if key in found else {}
        traces = (*one.traces, *found[key].traces) if key in found else one.traces
        found[key] = replace(one, mapping=PlatformIds(**(told | _told(one.mapping))), traces=traces)
    return found


async def _lock(transaction: Transaction, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], Any]:
    """The targets that are known already, locked in one order."""
    found: dict[tuple[int, str], Any] = {}
    for begin in range(0, len(keys), LOCK_CHUNK):
        found |= await _lock_some(transaction, keys[begin : begin + LOCK_CHUNK])
    return found


async def _lock_some(transaction: Transaction, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], Any]:
    urls: dict[int, list[str]] = {}
    for connection_id, url in keys:
        urls.setdefault(connection_id, []).append(url)
    which = (and_(_target.c.connection_id == one, _target.c.url.in_(named)) for one, named in urls.items())
    columns = [_target.c[name] for name in ("connection_id", "url", "started", "answered", *_SET, *_TOLD)]
    # Ordered as Python does, whatever the database's collation: renewed leases are locked in that order.
    by_url = _target.c.url.collate("C") if transaction.postgres else _target.c.url
    query = select(*columns).where(or_(*which)).order_by(_target.c.connection_id, by_url).with_for_update()
    return {(row.connection_id, row.url): row for row in await transaction.rows(query)}


def _marked(one: Wanted, known: Any | None, number: int, turns: Turns, now: datetime) -> dict[str, Any]:
    """The target as the wish leaves it."""
    row = _named(one, known) | _in_line(one, known, turns) | {"wanted": number}
    if one.reason == "webhook":
        asked_by = {"delivery_id": one.delivery_id, "traceparent": _traces(one, known)}
        return row | {"asked": number, "asked_at": now, **asked_by}
    asked = 0 if known is None else known.asked
    kept = ("asked_at", "delivery_id", "traceparent")
    return row | {"asked": asked, **{name: getattr(known, name, None) for name in kept}}


def _traces(one: Wanted, known: Any | None) -> str | None:
    """Its traces, and those that wait for an answer already: one attempt answers them all."""
    waiting = known.traceparent if known is not None and known.wanted > known.answered else None
    return " ".join([*one.traces, *(waiting or "").split()][:MOST_TRACES]) or None


def _named(one: Wanted, known: Any | None) -> dict[str, Any]:
    """Which target it is, and what is known of the platform's own ids."""
    row = {"connection_id": one.connection_id, "url": one.url, "host": _host(one.url)}
    return row | {name: getattr(known, name, None) for name in _TOLD} | _told(one.mapping)


def _in_line(one: Wanted, known: Any | None, turns: Turns) -> dict[str, Any]:
    """Its priority, which never falls while it is due, and its turn, which it keeps while it waits for it."""
    wish = _priority(one)
    if known is None or known.wanted <= known.answered:
        return {"priority": wish, "reason": one.reason, "turn": turns.next(one.connection_id, wish)}
    priority = min(known.priority, wish)
    keeps = known.turn == PUT_OFF or (_waits(known) and known.priority == priority)
    return {
        "priority": priority,
        "reason": known.reason if known.priority < wish else one.reason,
        "turn": known.turn if keeps else turns.next(one.connection_id, priority),
    }


def _upsert(transaction: Transaction) -> Any:
    statement = insert(transaction, _target)
    change = {name: statement.excluded[name] for name in (*_SET, *_TOLD)}
    return statement.on_conflict_do_update(index_elements=["connection_id", "url"], set_=change)


async def _known_after(store: Store, connection_id: int, location_id: str | None, after: str) -> Sequence[Any]:
    query = select(_target.c.url, _target.c.location_id, _target.c.wanted, _target.c.started, _target.c.answered)
    query = query.where(_target.c.connection_id == connection_id, _target.c.url > after)
    if location_id is not None:
        query = query.where(_target.c.location_id == location_id)
    async with store.reading() as transaction:
        return await transaction.rows(query.order_by(_target.c.url).limit(MARK_CHUNK))


def _waits(row: Any) -> bool:
    """Whether it waits for an attempt that begins later than now: what that one finds is the truth of now, too."""
    return bool(row.wanted > max(row.started, row.answered))


def _priority(one: Wanted) -> int:
    if one.reason == "webhook":
        return WEBHOOK
    return RESYNC if place_of(one.url).segment is None else RESYNC_ITEM


def _told(mapping: PlatformIds) -> dict[str, str]:
    return {name: value for name, value in msgspec.structs.asdict(mapping).items() if value is not None}


def _host(url: str) -> str:
    return urlsplit(url).netloc.lower()
