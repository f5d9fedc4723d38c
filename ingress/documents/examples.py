"""One message of each kind that crosses the border of the gateway, as it is on the wire: for people to read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from schemas.events import (
    ConnectionChanged,
    EventData,
    GrantChanged,
    ListingChanged,
    ListingSnapshot,
    PatchOperation,
    SnapshotCompleted,
    SyncHeld,
)
from schemas.messages import SnapshotRequested

SNAPSHOT = "nightly-2026-01-02"
REPLIES = "my-team.snapshot"
EVENT_ID = "019b7cb5-47fe-7d3a-9c1e-5b0f4a6e2d71"

_AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
_LISTING: dict[str, Any] = {
    "listing_id": "6f0b1a0e-9c57-5d0c-8f9b-4b1f3a0f9e55",
    "connection_id": 99,
    "attribute_type": "resources",
    "item_id": "7843",
    "location_id": "1198",
    "resource_id": "7843",
    "resource_type": "meeting-room",
    "version": 2,
    "current": {"ID": "7843", "capacity": 12},
}

EVENTS: dict[type[EventData], EventData] = {
    type(one): one
    for one in (
        ListingChanged(
            **_LISTING,
            change="updated",
            reason="webhook",
            changed_fields=["capacity"],
            patch=[PatchOperation(op="replace", path="/capacity", value=12)],
            previous={"ID": "7843", "capacity": 10},
            delivery_id="019b7cb5-4011-7c55-b1d2-0d9e7f3c8a42",
            fetched_at=_AT,
        ),
        ConnectionChanged(connection_id=99, user_id="1", state="confirmed"),
        GrantChanged(state="needs_authorisation"),
        SyncHeld(connection_id=99, held=12, live=30),
        ListingSnapshot(**_LISTING, deleted=False),
        SnapshotCompleted(snapshot_id=SNAPSHOT, listings=30),
    )
}
"""The data of an event of each type."""

SUBJECTS: dict[type[EventData], str] = {
    ListingChanged: "99/resources/7843",
    ConnectionChanged: "99",
    GrantChanged: "grant",
    SyncHeld: "99",
    ListingSnapshot: "99/resources/7843",
    SnapshotCompleted: SNAPSHOT,
}

REQUEST = SnapshotRequested(to=REPLIES, connection_id=99, snapshot_id=SNAPSHOT)


def told(value: Any) -> Any:
    """A value as JSON has it."""
    return msgspec.json.decode(msgspec.json.encode(value))


def moment() -> str:
    """When the examples happened."""
    return str(told(_AT))
