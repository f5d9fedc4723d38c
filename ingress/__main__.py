"""`python -m ingress`: serves HTTP until SIGTERM."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from common.broker.metrics import BrokerMetrics
from common.broker.publisher import Publisher
from common.listen import Listener, raise_file_limit
from common.metrics import process_registry
from common.process import Run, main, pause, until_stopped
from ingress.app import SECTIONS, Parts, Settings, create_app, create_ops_app


def build(*sections: Any) -> Run:
    """The ingress, ready to run until it is stopped."""
    settings = Settings(*sections)

    async def run(stop: asyncio.Event) -> None:
        raise_file_limit()
        registry = process_registry()
        publishers = _publishers(settings, BrokerMetrics(registry))
        parts = Parts(settings, *publishers, registry=registry)
        listeners = _listeners(settings, parts)
        done = asyncio.Event()
        for publisher in publishers:
            publisher.start()
        try:
            await until_stopped(
                done,
                _serve(listeners, parts, settings.listen.drain_seconds, stop, done),
                parts.refused.run(done),
                parts.heartbeat.run(done),
                parts.revocations.run(done),
                parts.store_watch.run(done),
                *(listener.close_silent(done) for listener in listeners),
            )
        finally:
            await asyncio.gather(*(publisher.close() for publisher in publishers))
            await parts.store.close()

    return run


def _publishers(settings: Settings, metrics: BrokerMetrics) -> list[Publisher]:
    """For what our processes do, and, where events have a broker of their own, for requests that are replayed there."""
    urls = dict.fromkeys((settings.broker.amqp_url.get_secret_value(), settings.events.url(settings.broker)))
    return [Publisher(url, "ingress", metrics) for url in urls]


async def _serve(
    listeners: list[Listener], parts: Parts, drain_seconds: float, stop: asyncio.Event, done: asyncio.Event
) -> None:
    """Until `stop`; then unready first, so that nobody is sent here any more, then what is in hand is finished."""
    try:
        for listener in listeners:
            await listener.start()
        await stop.wait()
        parts.readiness.stopping = True
        await pause(done, drain_seconds)
    finally:
        await asyncio.gather(*(listener.close() for listener in listeners))
        done.set()


def _listeners(settings: Settings, parts: Parts) -> list[Listener]:
    listen = settings.listen
    listeners = [Listener(create_app(settings, parts), listen.http_host, listen.http_port, "HTTP_PORT")]
    if listen.ops_port is not None:
        listeners.append(Listener(create_ops_app(settings, parts), listen.http_host, listen.ops_port, "OPS_PORT"))
    return listeners


if __name__ == "__main__":
    sys.exit(main("ingress", SECTIONS, build))
