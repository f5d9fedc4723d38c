"""Broker and store go away and come back: refusals in time, flat memory, and everything goes on by itself.

One gateway on a node of its own; its processes are started before the schema and the topology are there.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest
import pytest_asyncio

from common.access_tokens import AccessTokens
from common.clock import wall_seconds
from ops.broker import PrivateNode
from ops.stack import WORKERS
from tests.acceptance.world import World, gateway_setup, recorder, webhook_body, world
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTION = 99
REFUSED = 300
GROWTH = 20 * 2**20
ANSWER_SECONDS = 5.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(directory: Path, sqlite_url: str, node: PrivateNode) -> AsyncIterator[World]:
    """Every process is started first, and set up when it waits for that."""
    vhost = node.broker().vhost("gateway-test")
    async with world(directory, amqp_url=vhost.url, database_url=sqlite_url, roles=(), set_up=False) as made:
        for role in ("ingress", *WORKERS):
            await made.stack.start(role)
        await until(lambda: all("waiting" in made.stack.logs(f"{role}-1") for role in WORKERS), 20, "workers to wait")
        await gateway_setup(made.stack)
        node.settle()
        async with recorder(vhost.url, made):
            await made.stack.wait_ready()
            await made.onboard(CONNECTION)
            yield made


async def test_processes_that_were_there_before_the_set_up_converge(gateway: World) -> None:
    """T-START-ORDER: as they did while the gateway was onboarded."""
    assert sorted(gateway.stack.names()) == sorted(f"{role}-1" for role in ("sandbox", "ingress", *WORKERS))
    await gateway.ledger()


async def test_without_the_broker_webhooks_are_refused_in_time_and_resynced_afterwards(
    gateway: World, node: PrivateNode
) -> None:
    """T-BRK-DOWN: the workers are even started without it."""
    ingress = psutil.Process(gateway.stack.pid("ingress-1"))
    url = await _some_rate(gateway)
    await gateway.sandbox.burst(50, 50, connection_id=CONNECTION)  # what is allocated once, is
    before = ingress.memory_info().rss
    node.kill()
    slowest = await _refused(gateway, url, REFUSED)
    assert slowest <= ANSWER_SECONDS
    assert ingress.memory_info().rss - before < GROWTH
    await gateway.sandbox.change("price", url, value=777)
    workers = [name for role in WORKERS for name in gateway.stack.names(role)]
    assert set(await asyncio.gather(*map(gateway.stack.terminate, workers))) == {0}
    await asyncio.gather(*map(gateway.stack.restart, workers))
    node.start()
    await until(lambda: _was_told(gateway, 777), 40, what="the event of a change whose webhook was refused")
    await gateway.sandbox.change("price", url, value=778)
    await gateway.ledger()


async def test_a_frozen_broker_is_refused_for_in_time(gateway: World, node: PrivateNode) -> None:
    """T-BRK-FREEZE."""
    url = await _some_rate(gateway)
    node.freeze()
    try:
        change = gateway.sandbox.change("price", url, value=888)
        slowest, _ = await asyncio.gather(_refused(gateway, url, 20), change)
        assert slowest <= ANSWER_SECONDS
    finally:
        node.resume()
    await until(lambda: _was_told(gateway, 888), 40, what="the event of a change whose webhook was refused")
    await gateway.ledger()


async def test_webhooks_are_taken_while_the_store_is_locked(gateway: World) -> None:
    """Nobody can write until the workers complain; what was accepted meanwhile comes out afterwards."""
    path = gateway.stack.environment["DATABASE_URL"].partition("///")[2]
    targets = list((await gateway.sandbox.world()).items)[:20]
    locker = sqlite3.connect(path, isolation_level=None)
    locker.execute("BEGIN EXCLUSIVE")
    try:
        start = (await gateway.sandbox.records()).order
        logged = len(gateway.stack.logs("fetch-1"))
        for target in targets:
            await gateway.sandbox.change("price" if "/rates/" in target else "rename", target, webhook=False)
        await gateway.sandbox.burst(100, 20, connection_id=CONNECTION)
        await until(lambda: "waiting" in gateway.stack.logs("fetch-1")[logged:], what="fetch feels the lock")
        await gateway.sandbox.burst(100, 20, connection_id=CONNECTION)
        records = await gateway.sandbox.records(after=start)
        assert Counter(hook.status for hook in records.webhooks if not hook.lost) == {200: 200}
        assert not records.calls
    finally:
        locker.rollback()
        locker.close()
    await gateway.ledger()
    records = await gateway.sandbox.records(after=start)
    assert {call.url for call in records.calls} >= set(targets)


async def _refused(gateway: World, url: str, times: int) -> float:
    """All these webhooks get 503 with Retry-After → the seconds that the slowest took."""
    issuing = AccessTokens([gateway.stack.environment["SECRET_KEYS"]], seconds=600)
    headers = {"Authorization": f"Bearer {issuing.issue(CONNECTION, 'of-the-test', wall_seconds())}"}
    target, body = f"{gateway.stack.url}/api/update/", webhook_body(CONNECTION, url, "rates")
    async with aiohttp.ClientSession() as session:

        async def one() -> float:
            began = time.monotonic()
            async with session.post(target, data=body, headers=headers) as answer:
                assert answer.status == 503
                assert int(answer.headers["Retry-After"]) > 0
            return time.monotonic() - began

        return max(await asyncio.gather(*(one() for _ in range(times))))


async def _some_rate(gateway: World) -> str:
    return next(url for url in (await gateway.sandbox.world()).items if "/rates/" in url)


def _was_told(gateway: World, price: int) -> bool:
    bodies = [event["data"].get("current") for event in gateway.events]
    return any(isinstance(body, dict) and body.get("price") == price for body in bodies)
