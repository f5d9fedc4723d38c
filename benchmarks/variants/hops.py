"""Hops are counted for some seconds, after a short time to warm up; prints the sum. How a hop is done is the variant's.

A hop: a message is taken from the queue `hop`, one is published to `bench` and confirmed, then the first is acked.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable

from benchmarks.variants.timed import SECONDS, WARM_SECONDS, cpu_seconds

SOURCE = "hop"
TARGET = "bench"
"""Exchange, routing key and queue."""
PREFETCH = 200
START_SECONDS = 20.0


async def counted(done: Callable[[], int], used: Callable[[], float] = cpu_seconds) -> dict[str, float]:
    """What was done in so many seconds, from a little after the first on; `done` and `used` tell what is by now."""
    async with asyncio.timeout(START_SECONDS):
        while not done():  # noqa: ASYNC110  # nothing more than a number is shared
            await asyncio.sleep(0.01)
    await asyncio.sleep(WARM_SECONDS)
    before, began, used_before = done(), time.perf_counter(), used()
    await asyncio.sleep(SECONDS)
    return {
        "operations": done() - before,
        "seconds": time.perf_counter() - began,
        "cpuSeconds": used() - used_before,
    }


def tell(said: dict[str, float], done: int) -> None:
    """Print it, with how many hops were done from the start to the end of the program."""
    json.dump({**said, "done": done}, sys.stdout)
