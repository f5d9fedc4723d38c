"""An event as it is in the log, and which ones somebody wants to see. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from common.settings import parse_duration


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


def moment(text: str, now: datetime) -> datetime:
    """`2h`, `30m`, `1d` before now, or a time such as `2026-01-02T03:04Z`; without a zone it is UTC.

    Raises:
        ValueError: it is neither; the text says what to write.
    """
    try:
        return now - parse_duration(text)
    except (ValueError, OverflowError):
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("is neither a duration such as 2h, 30m or 1d nor a time such as 2026-01-02T03:04Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def changed(data: Mapping[str, Any]) -> Any:
    """The listing as it is, or as it was when it is gone."""
    return data.get("previous") if data.get("current") is None else data["current"]
