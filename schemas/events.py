"""The events on `syncaroo.events`: the data of each type, and the CloudEvents 1.0 envelope around it (CONTRACT §4)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from schemas.messages import Json, Reason

Change = Literal["created", "updated", "deleted"]
Uuid = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
ConnectionId = Annotated[int, Meta(description="Syncaroo's number of the connection.")]


class EventData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of every event's data; `TYPE` is the CloudEvents type and the routing key."""

    TYPE: ClassVar[str]
    SCHEMA_VERSION: ClassVar[int] = 1


class PatchOperation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One RFC 6902 operation; `remove` has no value."""

    op: Literal["add", "remove", "replace"]
    path: str
    value: Any = msgspec.UNSET


class ListingNames(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Which listing it is: in Syncaroo, and for the platform."""

    listing_id: Annotated[Uuid, Meta(description="Ours, derived from where it lives in Syncaroo's API: stable.")]
    connection_id: ConnectionId
    attribute_type: Annotated[str, Meta(description="Plural, lower case: locations, resources, rates, …")]
    item_id: Annotated[str, Meta(description="The item's id in Syncaroo; numbers are told as text.")]
    location_id: Annotated[str | None, Meta(description="The platform's own id; null: no webhook has told it yet.")]
    resource_id: Annotated[str | None, Meta(description="The platform's own id; null: no webhook has told it yet.")]
    resource_type: Annotated[str | None, Meta(description="Such as meeting-room; null: no webhook has told it yet.")]


class ListingChanged(ListingNames, EventData, frozen=True, kw_only=True):
    """One difference of one listing; `version` grows by exactly 1 per listing."""

    TYPE: ClassVar[str] = "listing.changed"

    change: Annotated[Change, Meta(description="Created again after a deletion is created; the version goes on.")]
    reason: Annotated[Reason, Meta(description="Why the listing was looked at.")]
    version: Annotated[
        int, Meta(description="From 1, by exactly 1 per listing, never reused: drop what you have seen.")
    ]
    changed_fields: Annotated[list[str], Meta(description="Top-level members that differ, sorted; empty for a list.")]
    patch: Annotated[list[PatchOperation], Meta(description="RFC 6902, from previous to current.")]
    previous: Annotated[Json, Meta(description="The item before; null: there was none.")]
    current: Annotated[Json, Meta(description="The item as Syncaroo sent it; null: it is gone.")]
    delivery_id: Annotated[Uuid | None, Meta(description="The latest webhook that was answered; null: none was.")]
    fetched_at: datetime


class ListingSnapshot(ListingNames, EventData, frozen=True, kw_only=True):
    """The state of one listing, sent into one queue on request; of a deleted one `current` is null."""

    TYPE: ClassVar[str] = "listing.snapshot"

    version: Annotated[int, Meta(description="That of the latest event: what comes later is greater.")]
    current: Annotated[Json, Meta(description="The item as Syncaroo sent it; null: it is gone.")]
    deleted: bool


class SnapshotCompleted(EventData, frozen=True, kw_only=True):
    """Every listing that was asked for has been sent; `snapshot_id` is what the request was given or gave."""

    TYPE: ClassVar[str] = "snapshot.completed"

    snapshot_id: str
    listings: int


class ConnectionChanged(EventData, frozen=True, kw_only=True):
    """A user's connection was confirmed or revoked."""

    TYPE: ClassVar[str] = "connection.changed"

    connection_id: ConnectionId
    user_id: Annotated[str, Meta(description="The platform's own id of the user.")]
    state: Literal["confirmed", "revoked"]


class GrantChanged(EventData, frozen=True, kw_only=True):
    """Our own access to Syncaroo's API began or ended."""

    TYPE: ClassVar[str] = "grant.changed"

    state: Literal["active", "needs_authorisation"]


class SyncHeld(EventData, frozen=True, kw_only=True):
    """Too many listings vanished at once; a person decides."""

    TYPE: ClassVar[str] = "sync.held"

    connection_id: ConnectionId
    held: Annotated[int, Meta(description="Listings that wait for the decision.")]
    live: Annotated[int, Meta(description="Live listings of the connection, the held ones among them.")]


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """CloudEvents 1.0 in JSON; `data` is one of the above, already encoded."""

    specversion: Literal["1.0"] = "1.0"
    id: Annotated[Uuid, Meta(description="Unique and sortable by time; also the AMQP message_id.")]
    source: Annotated[str, Meta(description="EVENT_SOURCE of this gateway.", extra_json_schema={"minLength": 1})]
    type: str
    subject: Annotated[str, Meta(description="Such as 99/resources/7843, the connection's number, or grant.")]
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    dataschema: str
    data: msgspec.Raw


BROADCAST: tuple[type[EventData], ...] = (ListingChanged, ConnectionChanged, GrantChanged, SyncHeld)
"""What goes to everybody, on `syncaroo.events`."""
ON_REQUEST: tuple[type[EventData], ...] = (ListingSnapshot, SnapshotCompleted)
"""What goes into the one queue that asked."""
EVENT_TYPES: dict[str, type[EventData]] = {kind.TYPE: kind for kind in (*BROADCAST, *ON_REQUEST)}
"""Everything that goes out as a CloudEvent, by its type."""


def dataschema_of(source: str, kind: type[EventData]) -> str:
    """CloudEvents `dataschema` of what is written today."""
    return dataschema(source, kind.TYPE, kind.SCHEMA_VERSION)


def dataschema(source: str, type_: str, version: int) -> str:
    """CloudEvents `dataschema`: where the ingress serves the schema of this type's data in that version."""
    return f"{source.rstrip('/')}/schemas/{type_}/{version}"
