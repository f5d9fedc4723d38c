"""A process in numbers: its registry, and Prometheus' text format of it."""

from __future__ import annotations

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4


def process_registry() -> CollectorRegistry:
    """A registry that knows of the process itself: memory, processor time, open files, when it began."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def exposition(registry: CollectorRegistry) -> web.Response:
    """What `/metrics` answers."""
    return web.Response(body=generate_latest(registry), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_PLAIN_0_0_4})
