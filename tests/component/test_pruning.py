"""Forgetting on both databases: what goes, and what stays for ever."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from common.store.engine import Store
from common.store.leader import Leadership
from schemas.tables import AttemptRow, EventRow, table_of
from tests.component.conftest import StandBy
from tests.waiting import until
from workers.relay import pruning as timing
from workers.relay.pruning import Pruning
from workers.relay.store.history import ATTEMPTS_KEPT, HistoryStore

NOW = datetime.now(UTC)
OLD, YOUNG = NOW - timedelta(days=91), NOW - timedelta(days=89)
KEEP = timedelta(days=90)

_event = table_of(EventRow)
_attempt = table_of(AttemptRow)


@pytest.fixture(autouse=True)
def _in_batches_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "BATCH", 2)
    monkeypatch.setattr(timing, "BETWEEN_SECONDS", 0)


def event(listing_id: str | None, version: int | None, at: datetime = OLD, **more: Any) -> dict[str, Any]:
    return {
        "connection_id": 99, "event_id": f"{listing_id} {version}", "position": version or 0, "subject": "s",
        "type": "listing.changed", "listing_id": listing_id, "version": version, "data": "{}", "headers": "{}",
        "created_at": at, "published_at": at, **more,
    }  # fmt: skip


def attempt(url: str, started: int, at: datetime = YOUNG, connection_id: int = 99) -> dict[str, Any]:
    return {
        "connection_id": connection_id, "url": url, "path": url, "started": started, "reason": "webhook",
        "outcome": "answered", "at": at,
    }  # fmt: skip


async def add(store: Store, table: Any, rows: list[dict[str, Any]]) -> None:
    async with store.transaction() as transaction:
        await transaction.execute(table.insert(), rows)


async def left(store: Store) -> set[str]:
    async with store.reading() as transaction:
        return {row.event_id for row in await transaction.rows(_event.select())}


async def prune(store: Store) -> None:
    await Pruning(HistoryStore(store, KEEP), Leadership(store, "history")).prune(asyncio.Event())


async def test_of_a_listing_whose_events_are_all_old_the_latest_stays_for_ever(store: Store) -> None:
    names = ("a", "b", "c")
    await add(store, _event, [event(name, version) for name in names for version in range(1, 6)])
    for _ in range(2):
        await prune(store)
        assert await left(store) == {"a 5", "b 5", "c 5"}


async def test_what_is_young_or_was_never_published_stays(store: Store) -> None:
    await add(
        store,
        _event,
        [
            *(event("a", 1), event("a", 2, published_at=None), event("a", 3)),
            *(event("b", 1), event("b", 2, YOUNG), event("b", 3, YOUNG)),
            *(event("c", 1), event("c", 2), event("c", 3, YOUNG, published_at=None)),
            event("a", 1, connection_id=98, event_id="another connection's"),
        ],
    )
    await prune(store)
    assert await left(store) == {"a 2", "a 3", "b 2", "b 3", "c 3", "another connection's"}


async def test_old_events_about_no_listing_go(store: Store) -> None:
    more = {"type": "grant.changed", "connection_id": 0}
    rows = [event(None, None, at, event_id=str(at), **more) for at in (OLD, YOUNG)]
    rows.append(event(None, None, OLD, event_id="unpublished", **more | {"published_at": None}))
    await add(store, _event, rows)
    await prune(store)
    assert await left(store) == {str(YOUNG), "unpublished"}


async def test_attempts_go_when_they_are_old_or_too_many(store: Store) -> None:
    many = ATTEMPTS_KEPT + 3
    await add(store, _attempt, [attempt("old", number, OLD) for number in range(5)])
    await add(store, _attempt, [attempt(url, number) for url in ("x", "y", "z") for number in range(many)])
    await add(store, _attempt, [attempt("x", number, connection_id=98) for number in range(ATTEMPTS_KEPT)])
    await prune(store)
    async with store.reading() as transaction:
        rows = await transaction.rows(_attempt.select())
    kept = {(row.connection_id, row.url, row.started) for row in rows}
    latest = range(many - ATTEMPTS_KEPT, many)
    mine = {(99, url, number) for url in ("x", "y", "z") for number in latest}
    assert kept == mine | {(98, "x", number) for number in range(ATTEMPTS_KEPT)}


async def test_one_relay_at_a_time_forgets_and_stops_when_it_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(timing, "EVERY_SECONDS", 0.01)
    await add(store, _event, [event("a", version) for version in range(1, 4)])
    other = Leadership(store, "history")
    assert await other.held()
    stop = asyncio.Event()
    standby = StandBy(store, "history")
    running = asyncio.create_task(Pruning(HistoryStore(store, KEEP), standby).run(stop))
    await until(lambda: standby.asked >= 3)
    assert len(await left(store)) == 3, "another one leads"
    await other.release()

    async def done() -> bool:
        return await left(store) == {"a 3"}

    await until(done)
    stop.set()
    await running
