"""Events as the relay publishes them, of listings that tests make up: patches and the wire are the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from common.broker.outgoing import Outgoing
from common.broker.publisher import Publisher
from common.broker.topology import DIRECT
from common.clock import utc_now
from common.codec import dumps
from common.errors import BrokerUnavailable
from common.identity import listing_id_of
from common.ids import new_id
from common.store.events import headers_of, subject_of
from schemas.events import EventData, ListingChanged, ListingNames, ListingSnapshot, SnapshotCompleted
from tests.waiting import until
from workers.reconcile.patch import changed_fields, patch_between
from workers.relay.rules import PendingEvent, on_the_wire

SOURCE = "https://yourapp.com"
AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


@dataclass(frozen=True)
class Known:
    """What a consumer that has seen all events knows of a listing; `current` is None when it is deleted."""

    names: dict[str, Any]
    version: int
    current: Any


class Told:
    """Listings by item id; each change of one is the message of its event."""

    def __init__(self, connection_id: int = 99, location_id: str = "1198") -> None:
        self.known: dict[str, Known] = {}
        self._connection_id = connection_id
        self._location_id = location_id

    def put(self, item_id: str, **members: Any) -> Outgoing:
        """Created, updated, or created again."""
        return wire(self.change(item_id, {"ID": item_id, **members}))

    def gone(self, item_id: str) -> Outgoing:
        """Deleted."""
        return wire(self.change(item_id, None))

    def change(self, item_id: str, current: Any) -> ListingChanged:
        """The data of the event, and the new state in `known`."""
        before = self.known.get(item_id) or Known(self._names(item_id), 0, None)
        updated = before.current is not None and current is not None
        after = self.known[item_id] = replace(before, version=before.version + 1, current=current)
        return ListingChanged(
            **after.names,
            change="deleted" if current is None else "updated" if updated else "created",
            reason="gone" if current is None else "webhook",
            version=after.version,
            changed_fields=changed_fields(before.current, current) if updated else [],
            patch=patch_between(before.current, current) if updated else [],
            previous=before.current,
            current=current,
            delivery_id=None,
            fetched_at=AT,
        )

    def snapshot(self, to: str, snapshot_id: str) -> Iterator[Outgoing]:
        """The state of all listings and the message that completes it, addressed to the queue `to`."""
        for known in self.known.values():
            deleted = known.current is None
            state = ListingSnapshot(**known.names, version=known.version, current=known.current, deleted=deleted)
            yield _to(to, wire(state))
        yield _to(to, wire(SnapshotCompleted(snapshot_id=snapshot_id, listings=len(self.known))))

    def state(self) -> dict[str, tuple[int, Any]]:
        """Version and content by listingId, as every consumer should have it in the end."""
        return {known.names["listing_id"]: (known.version, known.current) for known in self.known.values()}

    def _names(self, item_id: str) -> dict[str, Any]:
        names = ListingNames(
            listing_id=listing_id_of(self._connection_id, "/v1/resources", item_id),
            connection_id=self._connection_id,
            attribute_type="resources",
            item_id=item_id,
            location_id=self._location_id,
            resource_id=item_id,
            resource_type=None,
        )
        return {name: getattr(names, name) for name in names.__struct_fields__}


def wire(event: EventData, at: datetime | None = None) -> Outgoing:
    """The message of an event that happened just now, or then."""
    pending = PendingEvent(
        connection_id=getattr(event, "connection_id", 0),
        event_id=new_id(),
        type=type(event).TYPE,
        schema_version=type(event).SCHEMA_VERSION,
        subject="snapshot" if isinstance(event, SnapshotCompleted) else subject_of(event),
        listing_id=getattr(event, "listing_id", None),
        data=dumps(event).decode(),
        headers=dumps(headers_of(event)).decode(),
        created_at=at or utc_now(),
    )
    return on_the_wire(pending, SOURCE)


async def published(publisher: Publisher, *messages: Outgoing) -> None:
    """Publish each until the broker has confirmed it, however long that takes: more than once, perhaps."""
    for message in messages:
        await until(partial(_is_confirmed, publisher, message), 60, "published")


async def _is_confirmed(publisher: Publisher, message: Outgoing) -> bool:
    try:
        await publisher.publish(message)
    except BrokerUnavailable:
        return False
    return True


def _to(queue: str, message: Outgoing) -> Outgoing:
    return msgspec.structs.replace(message, exchange=DIRECT, routing_key=queue)
