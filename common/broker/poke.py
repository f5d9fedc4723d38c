"""Listening for wake-ups: transient messages that carry nothing and may get lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aio_pika.abc import AbstractIncomingMessage

from common.broker.connection import bounded, close, connect, keep_trying
from common.broker.topology import WORK
from common.process import done_before


async def listen(url: str, routing_key: str, wake: Callable[[], object], stop: asyncio.Event) -> None:
    """Call `wake` for every poke on `syncaroo.work` until `stop`."""
    connection = await done_before(stop, connect(url, f"listen {routing_key}"))
    if connection is None:
        return

    async def on_poke(_: AbstractIncomingMessage) -> None:
        wake()

    async def subscribe() -> None:
        channel = await bounded(connection.channel(), 10)
        queue = await bounded(channel.declare_queue(exclusive=True, auto_delete=True), 10)
        await bounded(queue.bind(WORK, routing_key), 10)
        await bounded(queue.consume(on_poke, no_ack=True), 10)

    try:
        await done_before(stop, keep_trying(subscribe, f"listen {routing_key}"))
        await stop.wait()
    finally:
        await close(connection)
