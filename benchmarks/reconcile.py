"""Listings per second that are brought to what a page says, with their events: a page of 100 in a transaction."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import msgspec
from sqlalchemy import text

from benchmarks.broker import Bench
from benchmarks.databases import database
from benchmarks.measure import Goal, Sample, Variant
from benchmarks.processes import ROOT, Failed
from benchmarks.publish import Said
from benchmarks.variants.reconciling import LISTINGS
from common.store.engine import Store
from ops.migrating import upgrade

SECONDS = 3
PAGES = 40
GOALS = (
    Goal("gateway sqlite", "core sqlite", "rate", must=0.9, aim=1.5),
    Goal("gateway postgresql", "core postgresql", "rate", must=0.9, aim=1.5),
)


async def run(directory: Path, module: str, url: str, *, pages: int, stored: bool, changing: bool) -> Sample:
    """Run one program to its end, on a store that is there → listings in a second.

    Raises:
        Failed: it ended otherwise.
    """
    settings = {
        "BENCH_DATABASE": url,
        "BENCH_PAGES": str(pages),
        "BENCH_STORED": str(int(stored)),
        "BENCH_CHANGING": str(int(changing)),
        "BENCH_SECONDS": str(SECONDS),
    }
    log = directory / f"{module}.log"
    command = [sys.executable, "-m", f"benchmarks.variants.{module}"]
    with log.open("wb") as printed:
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **settings}, cwd=ROOT, stdout=printed
        )
        if await process.wait():
            raise Failed(" ".join(command))
    said = msgspec.json.decode(log.read_bytes().splitlines()[-1], type=Said)
    return Sample(said.operations * LISTINGS, said.seconds, said.cpu_seconds)


async def check(url: str, *, after: int, listings: int, changed: int) -> None:
    """Each listing's version is the revision that its body tells, and there is one event for each, without gaps.

    `after`: the position of the last event that was there before; `listings`: how many are stored; `changed`: how many
    changes were counted at least.

    Raises:
        Failed: something is missing, or too much.
    """
    store = Store(url)
    revision = "body::json->>'revision'" if store.postgres else "json_extract(body, '$.revision')"
    told = "SELECT listing_id FROM event WHERE position > :after"
    queries = {
        "listings": "SELECT count(*) FROM listing",
        "events": "SELECT count(*) FROM event WHERE position > :after",
        "versions that no body tells": "SELECT count(*) FROM listing "
        f"WHERE listing_id IN ({told}) AND CAST({revision} AS INTEGER) <> version",
        "listings with a gap": "SELECT count(*) FROM listing JOIN (SELECT listing_id, count(*) AS events, "
        "min(version) AS first, max(version) AS last FROM event "
        f"WHERE listing_id IN ({told}) GROUP BY listing_id) AS history ON history.listing_id = listing.listing_id "
        "WHERE last - first + 1 <> events OR last <> version",
    }
    try:
        async with store.reading() as transaction:
            seen = {
                what: (await transaction.rows(text(query), {"after": after}))[0][0] for what, query in queries.items()
            }
    finally:
        await store.close()
    wrong = seen["versions that no body tells"] or seen["listings with a gap"]
    if wrong or seen["listings"] != listings or seen["events"] < changed:
        raise Failed(f"reconcile: {changed} changes of {listings} listings were counted, but there are {seen}")


def remove(directory: Path, pattern: str) -> None:
    """A database's files."""
    for file in directory.glob(pattern):
        file.unlink()


def _variant(directory: Path, module: str, *, postgres: bool, changing: bool = True) -> Variant:
    async def one() -> Sample:
        path = directory / f"{secrets.token_hex(4)}.db"
        async with database() if postgres else nullcontext(f"sqlite+aiosqlite:///{path}") as url:
            await upgrade(url)
            sample = await run(directory, module, url, pages=PAGES, stored=False, changing=changing)
            listings = PAGES * LISTINGS
            changed = listings + (sample.operations if changing else 0)
            await check(url, after=0, listings=listings, changed=changed)
        remove(directory, f"{path.name}*")
        return sample

    return one


async def prepare(_: Bench, directory: Path) -> tuple[Mapping[str, Variant], Sequence[Goal]]:
    """Ours and the floor on each database; ours also with pages that say nothing new."""
    return {
        f"{name} {'postgresql' if postgres else 'sqlite'}": _variant(
            directory, module, postgres=postgres, changing=changing
        )
        for postgres in (False, True)
        for name, module, changing in (
            ("gateway", "reconcile_gateway", True),
            ("core", "reconcile_core", True),
            ("nothing changed", "reconcile_gateway", False),
        )
    }, GOALS
