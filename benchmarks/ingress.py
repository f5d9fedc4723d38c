"""Webhooks per second, and what one costs: 64 connections, durable, confirmed, authentic."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.broker import NAME, Bench
from benchmarks.load import SUCCESS, Done, Order
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
REFUSED = "503"
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


@dataclass(frozen=True)
class Service:
    """A process that serves a target; `host` is where its webhooks' links may lead."""

    target: Target
    pid: int
    host: str = "127.0.0.1:1"


Running = Callable[[Bench, Path], AbstractAsyncContextManager[Service]]


def bodies(key: str, host: str, first: int = 0, count: int = BODIES) -> list[str]:
    """So many webhooks as the guide prints them, each about another room and with its hash."""
    made = []
    for number in range(first, first + count):
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
    bench: Bench, service: Service, connections: int = CONNECTIONS, *, may_refuse: bool = False
) -> Sample:
    """Load for so long, after some to warm up; every webhook that was answered with success is in the queue.

    Raises:
        Failed: some were refused (with anything else than 503, if they may be), or are not there.
    """
    await _load(bench, service, connections, WARM_SECONDS, may_refuse)
    before = usage(service.pid)
    done = await _load(bench, service, connections, SECONDS, may_refuse)
    after = usage(service.pid)
    more = {"connections": connections, "median_ms": done.median_ms, "p99_ms": done.p99_ms}
    if may_refuse:
        more |= {"refused": done.statuses.get(REFUSED, 0), "refused_p99_ms": done.refused_p99_ms}
    return Sample(done.statuses.get(SUCCESS, 0), done.seconds, after.cpu_seconds - before.cpu_seconds, after.rss, more)


async def _load(bench: Bench, service: Service, connections: int, seconds: float, may_refuse: bool) -> Done:
    target = service.target
    headers = {"Authorization": f"Bearer {target.token}", "Content-Type": "application/json"}
    sent = bodies(target.key, service.host)
    await bench.purge(target.queue)
    done = await load(Order(url=target.url, headers=headers, bodies=sent, connections=connections, seconds=seconds))
    stored = await bench.stored(target.queue)
    refused = done.statuses.get(REFUSED, 0) if may_refuse else 0
    taken = done.statuses.get(SUCCESS, 0)
    # What was refused because it took too long may be there all the same.
    if sum(done.statuses.values()) != taken + refused or not taken <= stored <= taken + refused:
        raise Failed(f"{target.url}: answers {done.statuses}, {stored} messages stored")
    return done


async def prepare(bench: Bench, directory: Path) -> tuple[Mapping[str, Variant], Sequence[Goal]]:
    """Each variant starts its service, warms it up and measures it."""

    def of(running: Running) -> Variant:
        async def run() -> Sample:
            async with running(bench, directory) as service:
                return await measure(bench, service)

        return run

    return {name: of(running) for name, running in RUNNING.items()}, GOALS


@asynccontextmanager
async def gateway(bench: Bench, directory: Path) -> AsyncIterator[Service]:
    """Ours, on SQLite."""
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
        yield Service(target, stack.pid(name), made["SYNCAROO_API_HOSTS"])
    (directory / "gateway.db").unlink()


def other(name: str, command: Callable[[int], list[str]]) -> Running:
    """Another way to do it: a program that is told its port, broker, key and token."""

    @asynccontextmanager
    async def running(bench: Bench, directory: Path) -> AsyncIterator[Service]:
        port, key, token = free_port(), secrets.token_hex(16), secrets.token_hex(16)
        own = {"BENCH_KEY": key, "BENCH_TOKEN": token, "BENCH_PORT": str(port), "AMQP_URL": bench.url}
        async with program(command(port), own, port, directory / f"{name}.log") as pid:
            yield Service(Target(f"http://127.0.0.1:{port}/update", token, key, NAME), pid)

    return running


def flask(port: int) -> list[str]:
    """As it is run: one worker of sixteen threads."""
    bound = ["--workers", "1", "--threads", "16", "--bind", f"127.0.0.1:{port}", "--log-level", "warning"]
    return [str(PEERS / "gunicorn"), *bound, "benchmarks.variants.flask_ingress:app"]


floor = other("floor", lambda _: [sys.executable, "-m", "benchmarks.variants.floor_ingress"])
RUNNING: Mapping[str, Running] = {
    "gateway": gateway,
    "floor": floor,
    "fastapi + faststream": other(
        "fastapi", lambda _: [str(PEERS / "python"), "-m", "benchmarks.variants.fastapi_ingress"]
    ),
    "aiohttp + taskiq": other("taskiq", lambda _: [str(PEERS / "python"), "-m", "benchmarks.variants.taskiq_ingress"]),
    "flask + celery": other("flask", flask),
}
