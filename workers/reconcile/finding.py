"""A finding: what one message says of listings, and what is decided about each of them. Values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from common.store.parked import Parked
from schemas.events import ListingChanged
from schemas.messages import Source
from workers.reconcile.rules import Listing, Outcome

Decide = Callable[[Listing], Outcome]
Candidates = Mapping[str, tuple[Listing, Decide]]
"""By listing id, the listing as it would be if it is new, and the decision."""
Outcomes = Mapping[str, Outcome]
"""By listing id, in the order in which they are told."""


@dataclass(frozen=True)
class SecondLook:
    """A target to ask once more after so long, if its answer changes nothing: the API may lag its own webhook."""

    connection_id: int
    url: str
    after: timedelta


@dataclass(frozen=True)
class Finding:
    """What one message says of listings; `bad`: items that park themselves.

    Without a `source` no answer decides but a webhook (`unmapped`): the brake does not hold it.
    """

    candidates: Candidates
    tell: Callable[[Listing, Outcome], ListingChanged]
    source: Source | None
    second_look: SecondLook | None = None
    bad: Sequence[Parked] = ()
    trace: str | None = None
    """The trace that its events are of."""
