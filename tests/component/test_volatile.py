"""The alarm for members that change all the time, and what ignoring them does, on both databases."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from common.brake import NO_BRAKE
from common.broker.consumer import Delivery
from common.codec import dumps
from common.errors import StoreUnavailable
from common.store.engine import Store
from schemas.messages import PageFetched, PlatformIds, Source
from schemas.tables import EventRow, ListingRow, table_of
from workers.reconcile.handler import ReconcileHandler
from workers.reconcile.rules import Listing
from workers.reconcile.store.listings import ListingStore

ROOM = "https://api.syncaroo.com/v1/locations/5/resources/7"


async def _nobody() -> None: ...


async def read(store: Store, handler: ReconcileHandler, item: dict[str, Any]) -> None:
    began, ended = await store.number(), await store.number()
    source = Source(
        url=ROOM, began=began, ended=ended, asked=0, attempt=0, reason="resync", delivery_id=None, status=200,
        fetched_at=datetime.now(UTC),
    )  # fmt: skip
    page = PageFetched(connection_id=99, source=source, mapping=PlatformIds(), shape="item", items=[item], page=1)
    await handler([Delivery(dumps(page), {"schema": "PageFetched"}, "reconcile.1")])


async def versions(store: Store) -> int:
    async with store.reading() as transaction:
        rows = await transaction.rows(table_of(EventRow).select())
        listing = await transaction.row(table_of(ListingRow).select())
    assert listing is not None
    assert listing.version == len(rows)
    return len(rows)


async def test_a_member_that_makes_ten_versions_in_a_row_is_named_once(store: Store) -> None:
    handler = ReconcileHandler(ListingStore(store, delete_brake=NO_BRAKE), _nobody, timedelta(0))
    with capture_logs() as logs:
        for number in range(1, 25):
            await read(store, handler, {"ID": "7", "seen": number})
    alarms = [one for one in logs if one["event"] == "listing.volatile"]
    assert [(one["kind"], one["member"], one["log_level"]) for one in alarms] == [("resources", "seen", "warning")]
    assert await versions(store) == 24


async def test_what_is_written_does_not_fail_over_a_hint(store: Store) -> None:
    """It would be written again, and what parks itself a second time."""

    class Away(ListingStore):
        async def latest_changes(self, listings: Sequence[Listing]) -> list[tuple[Listing, list[list[str]]]]:
            asked.append(len(listings))
            raise StoreUnavailable("away")

    asked: list[int] = []
    handler = ReconcileHandler(Away(store, delete_brake=NO_BRAKE), _nobody, timedelta(0))
    for number in range(1, 25):
        await read(store, handler, {"ID": "7", "seen": number})
    assert asked
    assert await versions(store) == 24


@pytest.mark.parametrize("ignored", [("seen",), ("resources.seen",)])
async def test_ignored_it_makes_none(store: Store, ignored: tuple[str, ...]) -> None:
    handler = ReconcileHandler(ListingStore(store, delete_brake=NO_BRAKE), _nobody, timedelta(0), ignored)
    for number in range(5):
        await read(store, handler, {"ID": "7", "seen": number})
    assert await versions(store) == 1
    await read(store, handler, {"ID": "7", "seen": 5, "name": "Blue"})
    assert await versions(store) == 2
