"""Calls to Syncaroo's API, and what came of targets, in numbers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

CALL_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
WAIT_BUCKETS = (0.05, 0.25, 0.5, 1, 2.5, 5, 10, 20)


class FetchMetrics:
    """Of one process, on the registry that its `/metrics` shows; without one they are kept and shown nowhere."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.calls = Counter(
            "gateway_api_calls",
            "GETs to Syncaroo's API by class of status (none: no whole answer).",
            ["status"],
            registry=registry,
        )
        self.call_seconds = Histogram(
            "gateway_api_call_seconds",
            "Time of a GET, answered or not.",
            registry=registry,
            buckets=CALL_BUCKETS,
        )
        self.pages = Counter("gateway_pages", "Pages that were read and understood.", registry=registry)
        self.claimed = Counter("gateway_targets_claimed", "Targets that were claimed.", registry=registry)
        self.fetching = Gauge("gateway_targets_fetching", "Targets that are being fetched now.", registry=registry)
        self.fetches = Counter(
            "gateway_fetches", "Attempts to answer a target by how they ended.", ["outcome"], registry=registry
        )
        self.budget_wait_seconds = Histogram(
            "gateway_api_budget_wait_seconds",
            "Time that a GET, beyond a target's first, waited for a share of the API budget.",
            registry=registry,
            buckets=WAIT_BUCKETS,
        )
        self.budget_denied = Counter(
            "gateway_api_budget_denied", "GETs that got no share of the API budget in time.", registry=registry
        )
        self.backoffs = Counter(
            "gateway_api_backoffs", "Times that a host asked to be left alone for a while.", registry=registry
        )


def status_class(status: int) -> str:
    """`2xx` … `5xx`; 0, no answer, is `none`."""
    return f"{status // 100}xx" if status else "none"
