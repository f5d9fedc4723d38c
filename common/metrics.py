"""A process in numbers: its registry, and Prometheus' text format of it."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from common.logs import lost_lines


def process_registry() -> CollectorRegistry:
    """A registry that knows of the process itself: memory, processor time, open files, when it began, what of its log
    is lost.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_LostLines())
    return registry


class _LostLines(Collector):
    """Told here, too: who does not read the log will not read it there."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """One number."""
        yield CounterMetricFamily("gateway_log_lines_lost", "Log lines that nobody took off stdout.", lost_lines())


def exposition(registry: CollectorRegistry) -> web.Response:
    """What `/metrics` answers."""
    return web.Response(body=generate_latest(registry), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_PLAIN_0_0_4})
