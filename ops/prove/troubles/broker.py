"""The broker is killed, stands still, refuses, and forgets a queue."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aio_pika

from common.broker.topology import declare, queue_name, work_queues
from ops.broker import PrivateNode
from ops.demo.stage import StoryFailed
from ops.prove.plan import Kind
from ops.prove.troubles.scene import Happen, Scene

QUEUE = queue_name("fetch")
POLICY = "as-ordered"
TRIES = 3
DRAIN_SECONDS = 15.0
"""So long a queue may take until it is empty; one that is not in that time is left alone."""


def happenings() -> dict[Kind, Happen]:
    """All of them; who empties a queue needs both ends of it."""
    return {
        Kind("broker killed", ("broker",)): killed,
        Kind("broker stopped", ("broker",)): stopped,
        Kind("broker frozen", ("broker",), (1.0, 15.0)): frozen,
        Kind("broker out of memory", ("broker",)): out_of_memory,
        Kind("broker's disk full", ("broker",)): disk_full,
        Kind("broker's connections closed", ("broker",)): connections_closed,
        Kind("broker refuses webhooks", ("broker",)): refusing,
        Kind("queue of webhooks deleted", ("broker", "ingress", "fetch")): queue_deleted,
    }


@asynccontextmanager
async def killed(scene: Scene) -> AsyncIterator[None]:
    """As a power cut would."""
    await asyncio.to_thread(scene.node.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(scene.node.start)


@asynccontextmanager
async def stopped(scene: Scene) -> AsyncIterator[None]:
    """In good order, as for an update."""
    await asyncio.to_thread(scene.node.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(scene.node.start)


@asynccontextmanager
async def frozen(scene: Scene) -> AsyncIterator[None]:
    """Connections stay open, nothing answers."""
    scene.node.freeze()
    try:
        yield
    finally:
        scene.node.resume()


@asynccontextmanager
async def out_of_memory(scene: Scene) -> AsyncIterator[None]:
    """A memory alarm: the broker reads nothing from who publishes."""
    await asyncio.to_thread(scene.node.starve)
    try:
        yield
    finally:
        await asyncio.to_thread(scene.node.feed)


@asynccontextmanager
async def disk_full(scene: Scene) -> AsyncIterator[None]:
    """A disk alarm."""
    await _order(scene.node, "set_disk_free_limit", "999GB")
    try:
        yield
    finally:
        await _order(scene.node, "set_disk_free_limit", "50MB")


@asynccontextmanager
async def connections_closed(scene: Scene) -> AsyncIterator[None]:
    """All that the broker has."""
    await _order(scene.node, "close_all_connections", "as ordered")
    yield


@asynccontextmanager
async def refusing(scene: Scene) -> AsyncIterator[None]:
    """The queue of webhooks is full by an operator's policy: it answers with a nack."""
    definition = '{"max-length": 1, "overflow": "reject-publish"}'
    order = ("set_policy", "--priority", "100", "--apply-to", "queues", POLICY, f"^{QUEUE}$", definition)
    await _order(scene.node, *order)
    try:
        yield
    finally:
        await _order(scene.node, "clear_policy", POLICY)


@asynccontextmanager
async def queue_deleted(scene: Scene) -> AsyncIterator[None]:
    """Somebody deletes the queue of webhooks, empty, while nobody publishes to it; then webhooks have nowhere to go."""
    scene.stage.stack.freeze("ingress-1")
    try:
        is_deleted = await _is_drained(scene)
        if is_deleted:
            await _order(scene.node, "delete_queue", QUEUE)
    finally:
        scene.stage.stack.resume("ingress-1")
    try:
        yield
    finally:
        if is_deleted:
            await _declare_again(scene)


async def _order(node: PrivateNode, *arguments: str) -> str:
    """rabbitmqctl, again where a busy node has not answered in time."""
    for _ in range(TRIES):
        with suppress(subprocess.TimeoutExpired):
            return await asyncio.to_thread(node.ctl, *arguments)
    raise StoryFailed(f"the broker has not answered: rabbitmqctl {arguments[0]}")


async def _is_drained(scene: Scene) -> bool:
    """Whether it stays empty: what had been sent before may still be on its way."""
    empty, until = 0, asyncio.get_running_loop().time() + DRAIN_SECONDS
    while empty < 2 and asyncio.get_running_loop().time() < until:
        listed = await _order(scene.node, "list_queues", "name", "messages")
        empty = empty + 1 if dict(line.split("\t") for line in listed.splitlines()).get(QUEUE) == "0" else 0
    return empty == 2


async def _declare_again(scene: Scene) -> None:
    """As `gateway setup` does."""
    connection = await aio_pika.connect(scene.node.url)
    async with connection:
        queues = [queue for queue in work_queues(()) if queue.name == QUEUE]
        await declare(await connection.channel(), queues)
    await asyncio.to_thread(scene.node.settle)
