"""What a listing costs when many are stored: the same stage, with 1,000 to 1,000,000 listings in the store.

Each store is filled once, in bulk, and every turn has a copy of it; a variant goes through its pages in steps, so that
neighbours in time are none in the store.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.broker import Bench
from benchmarks.measure import Goal, Sample, Variant
from benchmarks.reconcile import check, remove, run
from benchmarks.variants.reconciling import CONNECTION, LISTINGS, first_version, scope, stored_body
from common.identity import listing_id_of
from ops.migrating import upgrade

STORED = (1_000, 10_000, 100_000, 1_000_000)
BATCH = 10_000
CACHE = "PRAGMA cache_size = -1000000"
"""While it is filled: indexes in the order of random ids are written page by page otherwise."""
GOALS = (Goal("sqlite, 1,000,000 stored", "sqlite, 1,000 stored", "cpu", must=1.3, aim=1.1),)

_AT = "2026-01-01 00:00:00.000000"
_LISTING = (
    "connection_id, listing_id, scope, item_id, own_path, attribute_type, location_id, resource_id, body, written_by, "
    "version, began, ended, own_began, asked, unmapped, deleted, changed_at"
)
_EVENT = (
    "connection_id, event_id, position, type, schema_version, subject, listing_id, version, data, headers, created_at, "
    "published_at"
)


def keys(listings: int) -> list[tuple[str, int, int]]:
    """Each listing's id, its page and its number in it, in the order of ids, as the table has them."""
    pages = range(listings // LISTINGS)
    return sorted(
        (listing_id_of(CONNECTION, scope(page), f"{one}"), page, one) for page in pages for one in range(LISTINGS)
    )


def rows(chosen: Sequence[tuple[str, int, int]]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Of listings, each with its latest event, long since published."""
    listings, events = [], []
    for listing_id, page, number in chosen:
        path, version = scope(page), first_version(page)
        own = (path, f"{number}", f"{path}/{number}", "rates", "1198", "7843", stored_body(number, version), "list")
        listings.append((CONNECTION, listing_id, *own, version, 1, 1, 0, 0, 0, False, _AT))
        subject, data = f"{CONNECTION}/rates/{number}", json.dumps({"changedFields": ["revision", "updated"]})
        event = ("listing.changed", 1, subject, listing_id, version, data, "{}", _AT, _AT)
        events.append((CONNECTION, f"stored-{listing_id}", 1, *event))
    return listings, events


def fill(path: Path, listings: int) -> None:
    """Store so many, with one event each."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(CACHE)
        ordered = keys(listings)
        for chosen in _batches(ordered):
            stored, told = rows(chosen)
            connection.executemany(_insert("listing", _LISTING), stored)
            connection.executemany(_insert("event", _EVENT), told)
            connection.commit()
        connection.execute("UPDATE sequence SET value = max(value, 1000) WHERE name = 'number'")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _batches(ordered: Sequence[tuple[str, int, int]]) -> Iterator[Sequence[tuple[str, int, int]]]:
    for begin in range(0, len(ordered), BATCH):
        yield ordered[begin : begin + BATCH]


def _insert(table: str, columns: str) -> str:
    return f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(columns.split(', ')))})"


def _variant(directory: Path, filled: Path, listings: int) -> Variant:
    async def one() -> Sample:
        pages, copy = listings // LISTINGS, filled.with_suffix(".turn.db")
        await asyncio.to_thread(shutil.copyfile, filled, copy)
        url = f"sqlite+aiosqlite:///{copy}"
        before = await asyncio.to_thread(_latest, url)
        sample = await run(directory, "reconcile_gateway", url, pages=pages, stored=True, changing=True)
        await check(url, after=before, listings=listings, changed=sample.operations)
        remove(directory, f"{copy.name}*")
        return sample

    return one


def _latest(url: str) -> int:
    with closing(sqlite3.connect(url.partition("///")[2])) as connection:
        position: int = connection.execute("SELECT max(position) FROM event").fetchone()[0]
        return position


async def prepare(_: Bench, directory: Path) -> tuple[Mapping[str, Variant], Sequence[Goal]]:
    """A store of each size."""
    variants = {}
    for listings in STORED:
        path = directory / f"{listings}.db"
        await upgrade(f"sqlite+aiosqlite:///{path}")
        await asyncio.to_thread(fill, path, listings)
        variants[f"sqlite, {listings:,} stored"] = _variant(directory, path, listings)
    return variants, GOALS
