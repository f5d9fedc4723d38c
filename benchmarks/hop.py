"""Hops per second: a message is taken from a quorum queue, one is published to another and confirmed, the first acked.

What a worker does with the broker, and nothing else. Each variant does 200 at once: ours in batches, as the fetch
worker; the others have no more from the broker.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.broker import Bench
from benchmarks.measure import Goal, Sample, Variant
from benchmarks.processes import PEERS, ROOT, Failed
from benchmarks.variants.hops import SOURCE, TARGET
from benchmarks.variants.timed import BODY
from common.broker.outgoing import Outgoing
from common.broker.publisher import Publisher
from common.broker.topology import DIRECT

SECONDS = 4
IN_FLIGHT = 1000
GOALS = (
    Goal("gateway", "aio-pika", "rate", must=4, aim=6),
    Goal("gateway", "faststream", "rate", must=7, aim=10),
    Goal("gateway", "celery prefork-2", "rate", must=15, aim=20),
)

OURS = Outgoing(
    SOURCE, BODY, DIRECT, {"schema": "WebhookReceived", "attempt": 0}, timestamp=datetime(2026, 1, 1, tzinfo=UTC)
)
CELERYS = Outgoing(
    *(SOURCE, msgspec.json.encode([[BODY.decode()], {}, {"callbacks": None, "errbacks": None, "chain": None}]), DIRECT),
    headers={"lang": "py", "task": "hop", "id": "hop", "root_id": "hop", "argsrepr": "", "kwargsrepr": ""},
    correlation_id="hop",
)
"""The same in Celery's second protocol: arguments in the body, the task's name in the headers."""


class Said(msgspec.Struct, frozen=True, rename="camel"):
    """What a program prints at its end: `operations` were done while it was timed, `done` in all its time."""

    operations: int
    seconds: float
    cpu_seconds: float
    done: int


async def preload(bench: Bench, message: Outgoing, messages: int) -> None:
    """A new source with so many messages in it, and an empty target."""
    await bench.channel.queue_delete(SOURCE)
    await bench.channel.declare_queue(SOURCE, durable=True, arguments={"x-queue-type": "quorum"})
    await bench.purge(TARGET)
    publisher = Publisher(bench.url, "preload")
    publisher.start()
    await publisher.wait_ready()
    try:
        for _ in range(0, messages, IN_FLIGHT):
            await asyncio.gather(*(publisher.publish(message) for _ in range(IN_FLIGHT)))
    finally:
        await publisher.close()


async def measure(bench: Bench, command: Sequence[str], message: Outgoing, messages: int) -> Sample:
    """Run one program to its end.

    Raises:
        Failed: it ended otherwise, ran out of messages, or says that more is done than acked, or acked than published.
    """
    await preload(bench, message, messages)
    settings = {"AMQP_URL": bench.url, "BENCH_SECONDS": str(SECONDS)}
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **settings}, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    if process.returncode:
        raise Failed(" ".join(command))
    said = msgspec.json.decode(printed.splitlines()[-1], type=Said)  # behind its log
    left, arrived = await _left(bench), await bench.stored(TARGET)
    if not left:
        raise Failed(f"{' '.join(command)}: {messages} messages are not enough")
    if not said.operations <= said.done <= messages - left <= arrived:
        raise Failed(f"{' '.join(command)}: {said.done} done, {messages - left} acked, {arrived} published")
    return Sample(said.operations, said.seconds, said.cpu_seconds)


async def _left(bench: Bench) -> int:
    """What waits in the source, when what was not acked has come back: the broker does that by and by."""
    seen = [-1, await bench.stored(SOURCE)]
    while seen[-1] != seen[-2]:
        await asyncio.sleep(0.3)
        seen.append(await bench.stored(SOURCE))
    return seen[-1]


async def prepare(bench: Bench, _: Path) -> tuple[Mapping[str, Variant], Sequence[Goal]]:
    """Ours, the library's way, and two frameworks' way."""

    def variant(python: Path | str, module: str, message: Outgoing, messages: int) -> Variant:
        return partial(measure, bench, [str(python), "-m", f"benchmarks.variants.{module}"], message, messages)

    peers = PEERS / "python"
    return {
        "gateway": variant(sys.executable, "hop_gateway", OURS, 180_000),
        "aio-pika": variant(sys.executable, "hop_floor", OURS, 30_000),
        "faststream": variant(peers, "hop_faststream", OURS, 20_000),
        "celery prefork-2": variant(peers, "hop_celery", CELERYS, 10_000),
    }, GOALS
