"""The webhook path in numbers."""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class WebhookMetrics:
    """Counters of one process, on the registry that `/metrics` shows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._webhooks = Counter("gateway_webhooks", "Webhooks by what became of them.", ["outcome"], registry=registry)
        self.webhooks = cache(self._webhooks.labels)
        """The counter of an outcome."""
        hashes = Counter(
            "gateway_webhook_hashes", "Authentic webhooks by what their hash showed.", ["verdict"], registry=registry
        )
        self.hashes = cache(hashes.labels)
        """The counter of a verdict."""
        self.publish_seconds = Histogram(
            "gateway_publish_seconds",
            "Time until the broker confirmed a webhook.",
            registry=registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4),
        )
        self.in_flight = Gauge("gateway_webhooks_in_flight", "Webhooks waiting for the broker.", registry=registry)
        self.refused_connections = Gauge(
            "gateway_refused_connections", "Connections to resync once the broker confirms again.", registry=registry
        )

    def came(self) -> float:
        """How many webhooks this process has answered, whatever became of them."""
        found = (sample for metric in self._webhooks.collect() for sample in metric.samples)
        return sum(sample.value for sample in found if sample.name.endswith("_total"))
