"""The webhook path in numbers."""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge


class WebhookMetrics:
    """Counters of one process, on the registry that `/metrics` shows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._webhooks = Counter("gateway_webhooks", "Webhooks by what became of them.", ["outcome"], registry=registry)
        self.webhooks = cache(self._webhooks.labels)
        """The counter of an outcome."""
        self._hashes = Counter(
            "gateway_webhook_hashes", "Authentic webhooks by what their hash showed.", ["verdict"], registry=registry
        )
        self.hashes = cache(self._hashes.labels)
        """The counter of a verdict."""
        self.in_flight = Gauge("gateway_webhooks_in_flight", "Webhooks waiting for the broker.", registry=registry)
        self.refused_connections = Gauge(
            "gateway_refused_connections", "Connections to resync once the broker confirms again.", registry=registry
        )

    def came(self) -> float:
        """How many webhooks this process has answered, whatever became of them."""
        found = (sample for metric in self._webhooks.collect() for sample in metric.samples)
        return sum(sample.value for sample in found if sample.name.endswith("_total"))
