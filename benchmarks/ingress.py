"""Webhooks per second, and what one costs: 64 connections, durable, confirmed, authentic."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.broker import NAME, Bench
from benchmarks.load import Order
from benchmarks.measure import Goal, Sample, Variant
from benchmarks.processes import PEERS, Failed, load, program, usage
from common.access_tokens import AccessTokens
from ops.children import free_port
from ops.stack import Stack, environment

CONNECTIONS = 64
SECONDS = 5.0
WARM_SECONDS = 1.0
BODIES = 64
CONNECTION = 99
GOALS = (
    Goal("gateway", "floor", "cpu", must=0.35, aim=0.25),
    Goal("gateway", "floor", "rate", must=3, aim=3.8),
    Goal("gateway", "fastapi + faststream", "rate", must=5, aim=6),
    Goal("gateway", "flask + celery", "rate", must=12, aim=17),
    Goal("gateway", "floor", "rss", must=1.5, aim=1.15),
)


@dataclass(frozen=True)
class Target:
    """A service that listens."""

    url: str
    token: str
    key: str
    queue: str


def bodies(key: str, host: str) -> list[str]:
    """Webhooks as the guide prints them, each with its hash."""
    made = []
    for number in range(BODIES):
        meta = {
            "resourceId": f"{7000 + number}",
            "attributeType": "rates",
            "resourceType": "meeting-room",
            "apiUrl": f"http://{host}/v1/locations/1198/resources/{7000 + number}/rates",
        }
        body = {"connectionId": CONNECTION, "webhookType": "data", "locationId": "1198", "metaData": meta}
        compact = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        body["hash"] = hmac.new(key.encode(), compact, hashlib.sha256).hexdigest()
        made.append(json.dumps(body))
    return made


async def measure(
    bench: Bench, target: Target, pid: int, seconds: float = SECONDS, host: str = "127.0.0.1:1"
) -> Sample:
    """Load for so long; every webhook that was answered with success is in the queue.

    Raises:
        Failed: some were refused, or are not there.
    """
    headers = {"Authorization": f"Bearer {target.token}", "Content-Type": "application/json"}
    order = Order(
        url=target.url, headers=headers, bodies=bodies(target.key, host), connections=CONNECTIONS, seconds=seconds
    )
    await bench.purge(target.queue)
    before = usage(pid)
    done = await load(order)
    after = usage(pid)
    taken, stored = done.statuses.get("200", 0), await bench.stored(target.queue)
    if set(done.statuses) != {"200"} or taken != stored:
        raise Failed(f"{target.url}: answers {done.statuses}, {stored} messages stored")
    more = {"median_ms": done.median_ms, "p99_ms": done.p99_ms}
    return Sample(taken, done.seconds, after.cpu_seconds - before.cpu_seconds, after.rss, more)


async def prepare(bench: Bench, directory: Path) -> tuple[Mapping[str, Variant], Sequence[Goal]]:
    """Each variant starts its service, warms it up and measures it."""
    return _variants(bench, directory), GOALS


def _variants(bench: Bench, directory: Path) -> Mapping[str, Variant]:

    def other(name: str, command: Callable[[int], list[str]]) -> Variant:
        async def run() -> Sample:
            port, key, token = free_port(), secrets.token_hex(16), secrets.token_hex(16)
            own = {"BENCH_KEY": key, "BENCH_TOKEN": token, "BENCH_PORT": str(port), "AMQP_URL": bench.url}
            target = Target(f"http://127.0.0.1:{port}/update", token, key, NAME)
            log = directory / f"{name}.log".replace(" ", "")
            async with program(command(port), own, port, log) as pid:
                await measure(bench, target, pid, WARM_SECONDS)
                return await measure(bench, target, pid)

        return run

    async def gateway() -> Sample:
        database = f"sqlite+aiosqlite:///{directory / 'gateway.db'}"
        made = environment(amqp_url=bench.url, database_url=database)
        async with Stack(made, directory / "gateway") as stack:
            done = await stack.run("-m", "ops", "setup")
            if done.code:
                raise Failed(done.output)
            [name] = await stack.start("ingress")
            await stack.wait_ready()
            issuing = AccessTokens([made["SECRET_KEYS"]], seconds=3600)
            token = issuing.issue(CONNECTION, "benchmark", int(time.time()))  # as an ingress would
            target = Target(f"{stack.url}/api/update/", token, made["PLATFORM_CLIENT_SECRET"], "syncaroo.fetch")
            host = made["SYNCAROO_API_HOSTS"]
            await measure(bench, target, stack.pid(name), WARM_SECONDS, host)
            sample = await measure(bench, target, stack.pid(name), SECONDS, host)
        (directory / "gateway.db").unlink()
        return sample

    python = str(PEERS / "python")
    return {
        "gateway": gateway,
        "floor": other("floor", lambda _: [sys.executable, "-m", "benchmarks.variants.floor_ingress"]),
        "fastapi + faststream": other("fastapi", lambda _: [python, "-m", "benchmarks.variants.fastapi_ingress"]),
        "flask + celery": other(
            "flask",
            lambda port: [
                *(str(PEERS / "gunicorn"), "--workers", "1", "--threads", "16", "--bind", f"127.0.0.1:{port}"),
                *("--log-level", "warning", "benchmarks.variants.flask_ingress:app"),
            ],
        ),
    }
