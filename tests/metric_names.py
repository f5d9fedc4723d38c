"""Every metric that the code has: read from the very objects that count, by the process that shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from common.broker.metrics import BrokerMetrics
from common.metrics import process_registry
from ingress.flow.metrics import FlowMetrics
from ingress.webhook.metrics import WebhookMetrics
from tests.flow import FLOW, Sources
from workers.fetch.metrics import FetchMetrics
from workers.reconcile.metrics import ReconcileMetrics
from workers.relay.metrics import RelayMetrics
from workers.token.metrics import TokenMetrics

_KINDS = (Counter, Gauge, Histogram)


@dataclass(frozen=True)
class Metric:
    """`name` as it is asked for; `buckets` of a histogram, as their labels are written."""

    name: str
    kind: str
    labels: tuple[str, ...]
    what: str
    shown_by: str
    buckets: tuple[str, ...] = ()

    @property
    def series(self) -> set[str]:
        """The names under which its samples are."""
        if self.kind == "histogram":
            return {f"{self.name}_{part}" for part in ("bucket", "sum", "count")}
        return {self.name}

    @property
    def row(self) -> str:
        """Its line in docs/metrics.md."""
        labels = ", ".join(f"`{label}`" for label in self.labels)
        return f"| `{self.name}` | {self.kind} | {labels} | {self.what} |"


async def all_metrics() -> list[Metric]:
    """Ours, in the order of the document."""
    ingress = [*_of(WebhookMetrics(CollectorRegistry()), "ingress"), *await _flow()]
    workers = {
        "every process": BrokerMetrics(), "token": TokenMetrics(), "fetch": FetchMetrics(),
        "reconcile": ReconcileMetrics(), "relay": RelayMetrics(),
    }  # fmt: skip
    return [*ingress, *(one for shown_by, metrics in workers.items() for one in _of(metrics, shown_by))]


def process_series() -> set[str]:
    """What the library tells of a process."""
    return {sample.name for family in process_registry().collect() for sample in family.samples}


def asked_for(expression: str) -> set[str]:
    """The series that a PromQL expression names."""
    without = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', "", expression)
    without = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", "", without)
    words = re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\w*\s*\()", without)
    return {word for word in words if "_" in word or word == "up"} - _functions(without)


def _functions(expression: str) -> set[str]:
    return set(re.findall(r"([a-zA-Z_][a-zA-Z0-9_]*)\s*\(", expression))


async def _flow() -> Iterator[Metric]:
    sources = Sources()
    metrics = FlowMetrics(sources, sources, sources.clock)
    await metrics.look()
    assert sources.flow is FLOW
    return (
        Metric(one.name, one.type, tuple(one._labelnames), one.documentation, "ingress") for one in metrics.collect()
    )


def _of(metrics: Any, shown_by: str) -> Iterator[Metric]:
    for one in vars(metrics).values():
        if isinstance(one, _KINDS):
            name = f"{one._name}_total" if isinstance(one, Counter) else one._name
            bounds = tuple(str(float(bound)) for bound in one._kwargs.get("buckets", ()))
            yield Metric(name, one._type, tuple(one._labelnames), one._documentation, shown_by, bounds)
