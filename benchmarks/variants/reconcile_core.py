"""The floor: SQLAlchemy Core, an `executemany` of listings and one of events in a transaction; nothing is compared."""

import asyncio
import itertools
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import uvloop
from sqlalchemy import event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.variants.reconciling import CONNECTION, DATABASE, PAGES, Pages, Turn
from benchmarks.variants.timed import timed
from schemas.tables import EventRow, ListingRow, table_of

POSTGRES = make_url(DATABASE).get_backend_name() == "postgresql"
TASKS = 4 if POSTGRES else 1
"""SQLite has one writer at a time: more would wait for each other."""
LISTING, EVENT = table_of(ListingRow), table_of(EventRow)
INSERT = (postgresql if POSTGRES else sqlite).insert(LISTING)
UPSERT = INSERT.on_conflict_do_update(
    index_elements=["connection_id", "listing_id"],
    set_={name: INSERT.excluded[name] for name in ("body", "version", "began", "ended", "changed_at")},
)
positions = itertools.count(1)


def text(value: Any) -> str:
    """JSON."""
    return msgspec.json.encode(value).decode()


def rows(turn: Turn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of listings and of events."""
    page = msgspec.json.decode(turn.body)
    source, now = page["source"], datetime.now(UTC)
    path = source["url"].removeprefix("https://api.syncaroo.com")
    listings, events = [], []
    for item in page["items"]:
        listing_id = f"{path}/{item['ID']}"
        common = {"connection_id": CONNECTION, "listing_id": listing_id, "version": turn.revision}
        listings.append(
            {
                **common,
                "scope": path,
                "item_id": item["ID"],
                "own_path": listing_id,
                "attribute_type": "rates",
                "location_id": "1198",
                "resource_id": "7843",
                "body": text(item),
                "written_by": "list",
                "began": source["began"],
                "ended": source["ended"],
                "own_began": 0,
                "asked": 0,
                "unmapped": 0,
                "deleted": False,
                "changed_at": now,
            }
        )
        events.append(
            {
                **common,
                "event_id": str(uuid4()),
                "position": next(positions),
                "type": "listing.changed",
                "schema_version": 1,
                "subject": f"{CONNECTION}/rates/{item['ID']}",
                "headers": "{}",
                "data": text({"listingId": listing_id, "version": turn.revision, "current": item}),
                "cause": text(source),
                "created_at": now,
            }
        )
    return listings, events


def durable(connection: Any, _: Any) -> None:
    """As the gateway has it."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


async def main() -> None:
    """Write."""
    engine = create_async_engine(DATABASE)
    if not POSTGRES:
        event.listen(engine.sync_engine, "connect", durable)
    pages = Pages(1)

    async def one() -> None:
        listings, events = rows(pages.next())
        async with engine.begin() as connection:
            await connection.execute(UPSERT, listings)
            await connection.execute(EVENT.insert(), events)

    for _ in range(PAGES):
        await one()
    await timed(one, TASKS)
    await engine.dispose()
    await asyncio.sleep(0)


if __name__ == "__main__":
    uvloop.run(main())
