"""Events on their way to subscribers, in numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LAG_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
WEBHOOK_BUCKETS = (0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 120, 300, 900, 3600)


@dataclass(frozen=True)
class Lag:
    """Seconds from an event's creation to its publication and, where it is known, from the webhook that led to it."""

    since_created: float
    since_webhook: float | None = None


class RelayMetrics:
    """Of one process, on the registry that its `/metrics` shows; without one they are kept and shown nowhere."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.events = Counter(
            "gateway_events_published",
            "Events published, by type and by who has them: all, or only the log and whoever could take them.",
            ["type", "heard"],
            registry=registry,
        )
        self.lag_seconds = Histogram(
            "gateway_event_lag_seconds",
            "Time from an event's creation until it was marked as published.",
            registry=registry,
            buckets=LAG_BUCKETS,
        )
        self.webhook_to_event_seconds = Histogram(
            "gateway_webhook_to_event_seconds",
            "Time from taking up a webhook until an event that it led to was marked as published.",
            registry=registry,
            buckets=WEBHOOK_BUCKETS,
        )
        self.leads = Gauge("gateway_relay_leader", "1 while this process is the relay that acts.", registry=registry)

    def observe(self, lags: Iterable[Lag]) -> None:
        """Of events that were marked."""
        for lag in lags:
            self.lag_seconds.observe(lag.since_created)
            if lag.since_webhook is not None:
                self.webhook_to_event_seconds.observe(lag.since_webhook)
