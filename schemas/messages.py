"""The messages on `syncaroo.work`: frozen, versioned, named for what has happened.

A message travels as JSON (camelCase) with its class name in the `schema` header; `REGISTRY` is the way back.
Tokens and codes appear only encrypted, in members whose names begin with `sealed`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

Json = Any
"""A decoded JSON value."""

Reason = Literal["webhook", "resync", "unmapped", "gone", "hand"]
"""Why a listing was looked at (CONTRACT §4)."""


Shape = Literal["item", "list", "whole"]
"""How an answer is read: `item` from the item's own URL, `list` from a collection, `whole` a list whose items carry no
ids and which is one listing (all its pages together)."""


class Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all messages; `v` is the message's schema version."""

    v: Literal[1] = 1


class PlatformIds(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a webhook tells about a listing: the platform's own ids and the kind of thing it is."""

    attribute_type: str | None = None
    resource_type: str | None = None
    location_id: str | None = None
    resource_id: str | None = None


class WebhookReceived(Message, frozen=True, kw_only=True):
    """A webhook that Syncaroo was told is accepted: `url` is wanted."""

    delivery_id: str
    connection_id: int
    url: str
    mapping: PlatformIds
    action: str | None = None
    received_at: datetime


class UnusableWebhook(Message, frozen=True, kw_only=True):
    """A webhook that was accepted and tells no target; its `body`, whatever it says, is kept for a person."""

    delivery_id: str
    connection_id: int
    body: Json
    received_at: datetime


class ResyncWanted(Message, frozen=True, kw_only=True):
    """Every known target of the connection (or of one of its locations) is wanted again."""

    connection_id: int
    location_id: str | None = None
    reason: Literal["resync", "hand"] = "resync"


class Source(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The attempt that an answer came from.

    `began` and `ended` are numbers of the store's sequence, taken right before the GET and after its answer;
    `asked` is the number of the latest webhook that the attempt answers (0: none).
    """

    url: str
    began: int
    ended: int
    asked: int
    attempt: int
    reason: Reason
    delivery_id: str | None
    fetched_at: datetime
    status: int


class PageFetched(Message, frozen=True, kw_only=True):
    """One page of an answer."""

    connection_id: int
    source: Source
    mapping: PlatformIds
    shape: Shape
    items: list[Json]
    page: int
    recheck: bool = False


class ItemGone(Message, frozen=True, kw_only=True):
    """The item's own URL answered 404 or 410; with `listing_id`, that listing is gone from what `source` read."""

    connection_id: int
    source: Source
    listing_id: str | None = None
    recheck: bool = False


class ListingUnmapped(Message, frozen=True, kw_only=True):
    """A webhook said `action: unmapped`; `number` orders it among the answers."""

    connection_id: int
    url: str
    number: int
    delivery_id: str
    received_at: datetime


class CodeReceived(Message, frozen=True, kw_only=True):
    """Syncaroo sent the admin back with an authorization code; `attempt_id` is the row of `connect_attempt`."""

    attempt_id: str
    sealed_code: str


class PairObtained(Message, frozen=True, kw_only=True):
    """A token pair whose commit failed; `rt_version` is the version that it succeeds, `attempt_id` whose code gave it.

    It does not say how long it is valid: its age is unknown without comparing two clocks, so it is renewed at once.
    """

    rt_version: int
    sealed_pair: str
    attempt_id: str | None = None


class SnapshotPosition(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The last listing that was sent, and how many there were by then."""

    connection_id: int
    listing_id: str
    sent: int


class SnapshotRequested(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody wants the state of all listings (or of those that fit) in the queue `to`; anybody may send one.

    A member of another name is refused: misspelt, it would ask for something else than was meant. `after` is ours: it
    says where the next part of a long snapshot begins.
    """

    to: str
    connection_id: int | None = None
    location_id: str | None = None
    attribute_type: str | None = None
    snapshot_id: str | None = None
    after: SnapshotPosition | None = None


REGISTRY: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        WebhookReceived,
        UnusableWebhook,
        ResyncWanted,
        PageFetched,
        ItemGone,
        ListingUnmapped,
        CodeReceived,
        PairObtained,
        SnapshotRequested,
    )
}
