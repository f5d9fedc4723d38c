"""A store with one of everything that the ingress tells of, under the ids that the documents have as examples."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from common.ids import new_id
from common.store.engine import Store, Transaction
from common.store.events import append_events
from common.store.parked import Parked, park
from ingress.documents import examples
from ingress.documents.inputs import EXAMPLES
from schemas.events import ListingChanged
from schemas.tables import (
    AttemptRow,
    BudgetRow,
    ConnectionRow,
    FamilyRow,
    FeedRow,
    GrantRow,
    InventoryRow,
    ListingRow,
    SuspectRow,
    TargetRow,
    UserRow,
    table_of,
)
from tests.answers import source
from tests.ingress_app import CONNECTION

HOST = "api.syncaroo.com"
ROOM = f"https://{HOST}{EXAMPLES['url']}"
LISTING = str(EXAMPLES["listingId"])


async def populate(store: Store) -> None:
    """Add a row of each kind; the connection's tokens are of the family `family`, as `bearer` has it."""
    async with store.transaction() as transaction:
        now = await transaction.now()
        later = now + timedelta(days=1)
        of_it: dict[str, Any] = {"connection_id": CONNECTION}
        names = {"attribute_type": "resources", "location_id": "1198", "resource_id": "7843", "resource_type": "office"}
        for table, row in (
            (UserRow, {"user_id": "1", "login": "ada", "created_at": now}),
            (InventoryRow, {"user_id": "1", "location_id": "1198", "body": LOCATION}),
            (ConnectionRow, {**of_it, "user_id": "1", "state": "confirmed", "created_at": now, "confirmed_at": now}),
            (FamilyRow, {**of_it, "family": "family", "generation": 0, "rotated_at": now, "expires_at": later}),
            (FeedRow, {**of_it, "heard_at": now, "silent_since": now, "resync_at": later}),
            (GrantRow, {"account": "syncaroo", "state": "active", "expires_at": later}),
            (BudgetRow, {"host": HOST, "tokens": 1.0, "refilled_at": now, "blocked_until": later}),
            (TargetRow, {**of_it, "url": ROOM, "host": HOST, "reason": "webhook", "asked": 9, "asked_at": now}),
            (AttemptRow, {**of_it, "url": ROOM, "path": EXAMPLES["url"], "started": 10, "ended": 12, "asked": 9,
                          "reason": "webhook", "delivery_id": new_id(), "outcome": "answered", "status": 200,
                          "pages": 1, "at": now}),
            (SuspectRow, {**of_it, "listing_id": LISTING, "url": ROOM, "state": "held", "walk": 11, "since": now}),
            (ListingRow, {**of_it, **names, "listing_id": LISTING, "scope": "/v1/locations/12/resources",
                          "item_id": "7843", "own_path": EXAMPLES["url"], "own_url": ROOM, "changed_at": now,
                          "body": '{"ID":"7843"}', "version": 2, "began": 10, "ended": 12, "deleted": False}),
        ):  # fmt: skip
            await _add(transaction, table, row)
        dead = Parked("syncaroo.fetch", "bad_json", CONNECTION, "fetch.17", "WebhookReceived", b"{}", 3)
        await park(transaction, [dead])
        await append_events(transaction, [examples.EVENTS[ListingChanged]], cause=source(10, ROOM))


LOCATION = '{"ID":"1198","name":"London","status":"active","resources":[' + (
    '{"ID":"7843","name":"Room","status":"active","type":"office"}]}'
)


async def _add(transaction: Transaction, table: type[Any], row: dict[str, Any]) -> None:
    await transaction.execute(table_of(table).insert().values(row))
