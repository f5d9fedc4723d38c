"""What goes to the broker and comes from it, in numbers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

CONFIRM_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4)
HANDLER_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)
WAIT_BUCKETS = (1, 2, 5, 10, 30, 60, 300, 900, 3600)


class BrokerMetrics:
    """Of one process, on the registry that its `/metrics` shows; without one they are kept and shown nowhere."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.confirm_seconds = Histogram(
            "gateway_confirm_seconds",
            "Time until the broker confirmed a message.",
            ["publisher"],
            registry=registry,
            buckets=CONFIRM_BUCKETS,
        )
        self.publish_failures = Counter(
            "gateway_publish_failures",
            "Messages that the broker did not confirm, by kind.",
            ["publisher", "kind"],
            registry=registry,
        )
        self.messages = Counter(
            "gateway_messages",
            "Messages taken from a queue, by what became of them.",
            ["queue", "became"],
            registry=registry,
        )
        self.handler_seconds = Histogram(
            "gateway_handler_seconds",
            "Time that a handler took for a batch of messages, successful or not.",
            ["queue"],
            registry=registry,
            buckets=HANDLER_BUCKETS,
        )
        self.hung = Counter(
            "gateway_handlers_hung",
            "Calls of a handler that took too long and were cancelled.",
            ["queue"],
            registry=registry,
        )
        self.wait_seconds = Histogram(
            "gateway_queue_wait_seconds",
            "Time from publishing a message to taking it, if not retried; in whole seconds, by two hosts' clocks.",
            ["queue"],
            registry=registry,
            buckets=WAIT_BUCKETS,
        )
