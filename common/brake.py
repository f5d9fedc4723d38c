"""The brake: how many of a connection's listings may vanish within an hour before a person is asked. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

ALWAYS_FREE = 3
"""So many may vanish whatever their share: a small connection would need a person for everything."""
NO_BRAKE = 1.0
PENDING_COUNTS = timedelta(hours=1)
"""A suspect whose own URL has not been answered for so long is no deletion to reckon with any more."""

State = Literal["absent", "pending", "held", "approved"]


@dataclass(frozen=True)
class Vanished:
    """A listing that may have vanished. `url`: its own, where it is asked; None: only a list tells of it."""

    listing_id: str
    url: str | None


@dataclass(frozen=True)
class Suspect:
    """What is noted of a listing that may have vanished; `walk`: the number of the walk or answer that missed it."""

    vanished: Vanished
    state: State
    walk: int
    since: datetime

    def passed(self, now: datetime) -> bool:
        """Whether it may be deleted without asking the brake again: it passed, or a person agreed."""
        fresh = self.since > now - PENDING_COUNTS
        return self.state == "approved" or (self.state == "pending" and fresh)


@dataclass(frozen=True)
class Tally:
    """A connection's listings: alive, deleted within the hour, and those of the living that are pending or held."""

    live: int
    deleted: int
    pending: int
    held: int


def is_too_many(new: int, tally: Tally, brake: float) -> bool:
    """Whether `new` more suspects would be more than may vanish within an hour: then all of them are held."""
    total = tally.deleted + tally.pending + tally.held + new
    return brake < NO_BRAKE and total > ALWAYS_FREE and total > brake * (tally.live + tally.deleted)


def is_news(held: int, new: int) -> bool:
    """Whether a person is told that `new` listings are held beside the `held` ones: every batch is told at once; those
    that come one by one at the first and whenever they have doubled, so that a thousand of them make ten alarms.
    """
    return new > 1 or (held + new).bit_length() > held.bit_length()
