"""The smallest consumer that is right: of each listing it keeps the highest version, and refuses nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from common.codec import canonical

State = dict[str, tuple[int, bool, str]]
"""By listing id: version, whether it is deleted, and what it is, as canonical JSON."""


@dataclass
class ReferenceConsumer:
    """Takes `listing.changed` and `listing.snapshot` in any order, any number of times."""

    state: State = field(default_factory=dict)
    completed: list[dict[str, Any]] = field(default_factory=list)
    """The data of `snapshot.completed`."""

    def take(self, event: dict[str, Any]) -> None:
        """One event."""
        data = event["data"]
        if event["type"] == "snapshot.completed":
            self.completed.append(data)
        if event["type"] not in ("listing.changed", "listing.snapshot"):
            return
        if data["version"] > self.state.get(data["listingId"], (0,))[0]:
            self.state[data["listingId"]] = state_of(data)


def state_of(data: dict[str, Any]) -> tuple[int, bool, str]:
    """Of an event's data, or of a listing as the admin API has it."""
    return data["version"], data["current"] is None, canonical(data["current"])


def states(listings: Iterable[dict[str, Any]]) -> State:
    """Of the admin API's listings."""
    return {one["listingId"]: state_of(one) for one in listings}
