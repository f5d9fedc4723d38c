"""The broker is killed, stands still, refuses, and forgets a queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial

import aio_pika

from common.broker.topology import declare, queue_name, work_queues
from ops.broker import PrivateNode
from ops.prove.plan import Kind
from ops.prove.troubles.scene import LATEST, Happen, Scene

QUEUE = queue_name("fetch")
POLICY = "as-ordered"
REFUSED_SECONDS = 5
DRAIN_SECONDS = 15.0
"""So long a queue may take until it is empty; one that is not in that time is left alone."""


def happenings() -> dict[Kind, Happen]:
    """All of them; who empties a queue needs both ends of it."""
    return {
        Kind("broker killed", ("broker",)): partial(down, PrivateNode.kill),  # as a power cut would
        Kind("broker stopped", ("broker",)): partial(down, PrivateNode.stop),  # in good order, as for an update
        Kind("broker frozen", ("broker",), (1.0, 15.0)): frozen,
        Kind("broker out of memory", ("broker",)): out_of_memory,
        Kind("broker's disk full", ("broker",)): disk_full,
        Kind("broker's connections closed", ("broker",)): connections_closed,
        Kind("broker refuses webhooks", ("broker", "fetch"), (3.0, 8.0)): refusing,
        Kind("queue of webhooks deleted", ("broker", "ingress", "fetch")): queue_deleted,
    }


@asynccontextmanager
async def down(end: Callable[[PrivateNode], None], scene: Scene) -> AsyncIterator[None]:
    """It ends in this way, and starts again at the end."""
    await asyncio.to_thread(end, scene.node)
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
    await asyncio.to_thread(scene.node.ctl, "set_disk_free_limit", "999999GB")
    try:
        yield
    finally:
        await asyncio.to_thread(scene.node.ctl, "set_disk_free_limit", "50MB")


@asynccontextmanager
async def connections_closed(scene: Scene) -> AsyncIterator[None]:
    """All that the broker has."""
    await asyncio.to_thread(scene.node.ctl, "close_all_connections", "as ordered")
    yield


@asynccontextmanager
async def refusing(scene: Scene) -> AsyncIterator[bool]:
    """The queue of webhooks is full by an operator's policy, and nobody takes what is in it: it answers with a nack."""
    definition = '{"max-length": 1, "overflow": "reject-publish"}'
    order = ("set_policy", "--priority", "100", "--apply-to", "queues", POLICY, f"^{QUEUE}$", definition)
    stack = scene.stage.stack
    with ExitStack() as down:
        names = [down.enter_context(scene.down(name)) for name in stack.names("fetch")]
        for name in names:
            await stack.kill(name)
        try:
            await asyncio.to_thread(scene.node.ctl, *order)
            yield await _webhooks_are_refused(scene)
        finally:
            await asyncio.to_thread(scene.node.ctl, "clear_policy", POLICY)
            for name in names:
                await stack.restart(name)


async def _webhooks_are_refused(scene: Scene) -> bool:
    """Whether one is, within a few seconds."""
    began = (await scene.stage.sandbox.records(LATEST)).order
    for _ in range(REFUSED_SECONDS):
        await asyncio.sleep(1.0)
        if any(one.status == 503 for one in (await scene.stage.sandbox.records(began)).webhooks):
            return True
    return False


@asynccontextmanager
async def queue_deleted(scene: Scene) -> AsyncIterator[bool]:
    """Somebody deletes the queue of webhooks, empty, while nobody publishes to it; then webhooks have nowhere to go."""
    async with scene.noted(scene.unheard):
        scene.stage.stack.freeze("ingress-1")
        try:
            is_deleted = await _is_drained(scene)
            if is_deleted:
                await asyncio.to_thread(scene.node.ctl, "delete_queue", QUEUE)
        finally:
            scene.stage.stack.resume("ingress-1")
    try:
        yield is_deleted
    finally:
        if is_deleted:
            await _declare_again(scene)


async def _is_drained(scene: Scene) -> bool:
    """Whether it stays empty: what had been sent before may still be on its way."""
    empty, until = 0, asyncio.get_running_loop().time() + DRAIN_SECONDS
    while empty < 2 and asyncio.get_running_loop().time() < until:
        listed = await asyncio.to_thread(scene.node.ctl, "list_queues", "name", "messages")
        empty = empty + 1 if dict(line.split("\t") for line in listed.splitlines()).get(QUEUE) == "0" else 0
    return empty == 2


async def _declare_again(scene: Scene) -> None:
    """As `gateway setup` does."""
    connection = await aio_pika.connect(scene.node.url)
    async with connection:
        queues = [queue for queue in work_queues(()) if queue.name == QUEUE]
        await declare(await connection.channel(), queues)
    await asyncio.to_thread(scene.node.settle)
