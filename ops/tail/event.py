"""An event as it is in the log, and which ones somebody wants to see. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec


class Event(msgspec.Struct, frozen=True):
    """What is needed of a CloudEvent to choose and show it."""

    type: str
    subject: str
    time: datetime
    data: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which events: any of the values within a filter, every filter that has some; `since` is when they happened."""

    connection: frozenset[int] = frozenset()
    location: frozenset[str] = frozenset()
    kind: frozenset[str] = frozenset()
    change: frozenset[str] = frozenset()
    type: frozenset[str] = frozenset()
    listing: frozenset[str] = frozenset()
    since: datetime | None = None

    def wants(self, event: Event) -> bool:
        """Whether it is one of them; what an event does not tell fits no filter for it."""
        data = event.data
        return (
            (self.since is None or event.time >= self.since)
            and _fits(self.type, event.type)
            and _fits(self.connection, data.get("connectionId"))
            and _fits(self.location, data.get("locationId"))
            and _fits(self.kind, data.get("attributeType"))
            and _fits(self.change, data.get("change"))
            and (_fits(self.listing, data.get("listingId")) or event.subject in self.listing)
        )


def _fits(wanted: frozenset[Any], value: object) -> bool:
    return not wanted or (isinstance(value, str | int) and value in wanted)


def changed(data: Mapping[str, Any]) -> Any:
    """The listing as it is, or as it was when it is gone."""
    return data.get("previous") if data.get("current") is None else data["current"]
