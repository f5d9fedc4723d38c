"""Webhook to event at light load: one webhook at a time, each about one changed listing; PostgreSQL.

`gateway` is all processes as they ship: the time from sending the webhook until its event is received here. Beside it
the hops of that way, each done bare and alone, and their medians summed (`variants/latency_bare.py` says which).
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aio_pika.abc import AbstractIncomingMessage

from benchmarks.broker import Bench
from benchmarks.databases import database
from benchmarks.ingress import bodies
from benchmarks.measure import Goal, Sample, Variant
from benchmarks.pipeline import Running, gateway
from benchmarks.processes import ROOT, Failed, program, usage
from ops.children import free_port

WEBHOOKS = 60
LISTINGS = 1
REST_SECONDS = 1.2
"""A target is asked at most once a second (`TARGET_INTERVAL`): that wait is a promise, and is not measured."""
EVENT_SECONDS = 10.0
BARE = "its hops, bare"
GOALS = (Goal("gateway", BARE, "latency", must=2, aim=1.3),)


class Hops(msgspec.Struct, frozen=True, rename="camel"):
    """What the program prints: each hop's times in ms, and what they cost its process together."""

    times: dict[str, list[float]]
    cpu_seconds: float


@dataclass(frozen=True)
class Event:
    """One that was received, and when."""

    at: float
    data: Mapping[str, Any]


async def prepare(bench: Bench, directory: Path) -> tuple[Mapping[str, Variant], Sequence[Goal]]:
    """Both have an API of their own, in which a listing is another one each time it is asked for, and a database."""

    async def ours() -> Sample:
        async with _api(directory) as api, gateway(bench, directory, api) as running:
            return await _measure(bench, running, api)

    async def bare() -> Sample:
        async with _api(directory) as api:
            return await _measure_bare(bench, f"http://{api}/v1/locations/1198/resources/7000/rates")

    return {"gateway": ours, BARE: bare}, GOALS


@asynccontextmanager
async def _api(directory: Path) -> AsyncIterator[str]:
    port = free_port()
    serving = [sys.executable, "-m", "benchmarks.variants.pages", str(port), str(LISTINGS), "0", "changing"]
    async with program(serving, {}, port, directory / "api.log"):
        yield f"127.0.0.1:{port}"


async def _measure(bench: Bench, running: Running, api: str) -> Sample:
    """All listings become known first; each is changed then.

    Raises:
        Failed: a webhook has no event, another's, or more than one.
    """
    events: asyncio.Queue[Event] = asyncio.Queue()

    async def received(message: AbstractIncomingMessage) -> None:
        events.put_nowait(Event(time.perf_counter(), msgspec.json.decode(message.body)["data"]))

    queue = await bench.channel.get_queue(running.events)
    tag = await queue.consume(received, no_ack=True)
    headers = {"Authorization": f"Bearer {running.target.token}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as session:
        sent = bodies(running.target.key, api, 0, WEBHOOKS)
        for body in sent:
            await _one(session, running.target.url, body, events, version=1)
        await asyncio.sleep(REST_SECONDS)
        before = sum(usage(pid).cpu_seconds for pid in running.pids)
        seconds = [await _one(session, running.target.url, body, events, version=2) for body in sent]
        after = [usage(pid) for pid in running.pids]
        await asyncio.sleep(REST_SECONDS)
    await queue.cancel(tag)
    if not events.empty():
        raise Failed(f"{events.qsize()} events more than webhooks")
    used, rss = sum(one.cpu_seconds for one in after) - before, sum(one.rss for one in after)
    return Sample(WEBHOOKS, sum(seconds), used, rss, {"median_ms": statistics.median(seconds) * 1000})


async def _one(
    session: aiohttp.ClientSession, url: str, body: str, events: asyncio.Queue[Event], *, version: int
) -> float:
    """Send a webhook and wait for its event → the seconds between."""
    began = time.perf_counter()
    async with session.post(url, data=body) as answer:
        delivery = msgspec.json.decode(await answer.read()).get("deliveryId")
    try:
        async with asyncio.timeout(EVENT_SECONDS):
            event = await events.get()
    except TimeoutError:
        raise Failed(f"{url}: answered {answer.status}, no event in {EVENT_SECONDS:g} s") from None
    told = event.data["deliveryId"], event.data["version"]
    if told != (delivery, version):
        raise Failed(f"{url}: answered {answer.status}, an event of {told} for {(delivery, version)}")
    return event.at - began


async def _measure_bare(bench: Bench, url: str) -> Sample:
    """Run the program to its end.

    Raises:
        Failed: it ended otherwise: a hop had not its outcome.
    """
    await bench.purge()
    async with database() as store:
        settings = {"AMQP_URL": bench.url, "DATABASE_URL": store, "BENCH_URL": url, "BENCH_TIMES": str(WEBHOOKS)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.variants.latency_bare"),
            env={**os.environ, **settings},
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate()
    if process.returncode:
        raise Failed("latency_bare")
    said = msgspec.json.decode(printed, type=Hops)
    medians = {f"{name}_ms": statistics.median(times) for name, times in said.times.items()}
    seconds = sum(map(sum, said.times.values())) / 1000
    return Sample(WEBHOOKS, seconds, said.cpu_seconds, 0, {"median_ms": sum(medians.values()), **medians})
