"""So many tasks that do one thing again and again for some seconds, after a short time to warm up; prints the sum."""

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable

URL = os.environ.get("AMQP_URL", "")
SECONDS = float(os.environ.get("BENCH_SECONDS", "4"))
WARM_SECONDS = 0.5
IN_FLIGHT = 64
BODY = b'{"deliveryId": "0197", "connectionId": 99, "url": "%s"}' % (b"x" * 200)


def cpu_seconds() -> float:
    """Of this process, both kinds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def timed(one: Callable[[], Awaitable[object]], tasks: int) -> None:
    """Do it for so long, and print what came of it."""
    done, over = 0, False

    async def again_and_again() -> None:
        nonlocal done
        while not over:
            await one()
            done += 1

    running = [asyncio.create_task(again_and_again()) for _ in range(tasks)]
    await asyncio.sleep(WARM_SECONDS)
    before, began, used = done, time.perf_counter(), cpu_seconds()
    await asyncio.sleep(SECONDS)
    said = {"operations": done - before, "seconds": time.perf_counter() - began, "cpuSeconds": cpu_seconds() - used}
    over = True
    await asyncio.gather(*running)
    json.dump(said, sys.stdout)
