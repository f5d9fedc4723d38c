"""The events on `syncaroo.events`: the data of each type, and the CloudEvents 1.0 envelope around it (CONTRACT §4)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

import msgspec

from schemas.messages import Json, Reason

Change = Literal["created", "updated", "deleted"]


class EventData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of every event's data; `TYPE` is the CloudEvents type and the routing key."""

    TYPE: ClassVar[str]
    SCHEMA_VERSION: ClassVar[int] = 1


class PatchOperation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One RFC 6902 operation; `remove` has no value (`UNSET`)."""

    op: Literal["add", "remove", "replace"]
    path: str
    value: Any = msgspec.UNSET


class ListingNames(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Which listing it is: in Syncaroo, and for the platform."""

    listing_id: str
    connection_id: int
    attribute_type: str
    item_id: str
    location_id: str | None
    resource_id: str | None
    resource_type: str | None


class ListingChanged(ListingNames, EventData, frozen=True, kw_only=True):
    """One difference of one listing; `version` grows by exactly 1 per listing."""

    TYPE: ClassVar[str] = "listing.changed"

    change: Change
    reason: Reason
    version: int
    changed_fields: list[str]
    patch: list[PatchOperation]
    previous: Json
    current: Json
    delivery_id: str | None
    fetched_at: datetime


class ListingSnapshot(ListingNames, EventData, frozen=True, kw_only=True):
    """The state of one listing, sent into one queue on request; of a deleted one `current` is null."""

    TYPE: ClassVar[str] = "listing.snapshot"

    version: int
    current: Json
    deleted: bool


class SnapshotCompleted(EventData, frozen=True, kw_only=True):
    """Every listing that was asked for has been sent; `snapshot_id` is what the request was given or gave."""

    TYPE: ClassVar[str] = "snapshot.completed"

    snapshot_id: str
    listings: int


class ConnectionChanged(EventData, frozen=True, kw_only=True):
    """A user's connection was confirmed or revoked."""

    TYPE: ClassVar[str] = "connection.changed"

    connection_id: int
    user_id: str
    state: Literal["confirmed", "revoked"]


class GrantChanged(EventData, frozen=True, kw_only=True):
    """Our own access to Syncaroo's API began or ended."""

    TYPE: ClassVar[str] = "grant.changed"

    state: Literal["active", "needs_authorisation"]


class SyncHeld(EventData, frozen=True, kw_only=True):
    """Too many listings vanished at once; a person decides."""

    TYPE: ClassVar[str] = "sync.held"

    connection_id: int
    held: int
    live: int


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """CloudEvents 1.0 in JSON; `data` is one of the above, already encoded."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    dataschema: str
    data: msgspec.Raw
