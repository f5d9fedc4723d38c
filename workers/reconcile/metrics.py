"""What answers made of listings, in numbers."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

from workers.reconcile.rules import Outcome

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class ReconcileMetrics:
    """Of one process, on the registry that its `/metrics` shows; without one they are kept and shown nowhere."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.listings = Counter(
            "gateway_listings_reconciled",
            "Listings in answers by what the answer made of them.",
            ["outcome"],
            registry=registry,
        )
        self.transaction_seconds = Histogram(
            "gateway_reconcile_seconds",
            "Time of the transaction of one answer.",
            registry=registry,
            buckets=BUCKETS,
        )

    def count(self, outcomes: Iterable[Outcome]) -> None:
        """What one answer made of its listings."""
        for kind, count in Tally(map(kind_of, outcomes)).items():
            self.listings.labels(kind).inc(count)


def kind_of(outcome: Outcome) -> str:
    """created, updated, deleted, held (for a person), overlapped (asked again: two answers crossed), unchanged."""
    if outcome.held:
        return "held"
    if outcome.change is not None:
        return outcome.change
    return "overlapped" if outcome.doubt else "unchanged"
