"""T-START-ORDER. Processes and `gateway setup` are there first, in any order; broker and database come late."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from ops.broker import PrivateNode
from ops.prove.proxy import Mode, Proxy
from ops.stack import WORKERS
from tests.acceptance.world import World, gateway_setup, recorder, world
from tests.fixtures.postgresql import database
from tests.waiting import until

CONNECTION = 99


@pytest.fixture
def empty_database(postgresql: str) -> Iterator[str]:
    """`DATABASE_URL` of a database without a schema."""
    with database(postgresql, "gateway_test") as url:
        yield url


async def test_the_broker_comes_last(private_node: PrivateNode, empty_database: str, tmp_path: Path) -> None:
    """The set-up has made the store's schema, and waits as all the others do."""
    amqp_url = _stop(private_node)
    async with (
        Proxy.before(empty_database) as store,
        world(tmp_path, amqp_url=amqp_url, database_url=store.url(empty_database), roles=(), set_up=False) as made,
    ):
        store.mode = Mode.RESET
        await _start(made, "ingress", *WORKERS)
        setting_up = asyncio.create_task(gateway_setup(made.stack))
        store.mode = Mode.PASS
        await until(lambda: _has_schema(made), 20, what="the schema")
        assert not setting_up.done()
        await asyncio.to_thread(private_node.start)
        await setting_up
        await _converges(made, amqp_url)


async def test_the_database_comes_last(private_node: PrivateNode, empty_database: str, tmp_path: Path) -> None:
    """The ingress talks to the broker, and the set-up, which was there before anybody, waits for the store."""
    amqp_url = _stop(private_node)
    async with (
        Proxy.before(empty_database) as store,
        world(tmp_path, amqp_url=amqp_url, database_url=store.url(empty_database), roles=(), set_up=False) as made,
    ):
        store.mode = Mode.RESET
        setting_up = asyncio.create_task(gateway_setup(made.stack))
        await _start(made, *reversed(WORKERS), "ingress")
        await asyncio.to_thread(private_node.start)
        await until(lambda: _asks_for_setup(made), 20, what="the ingress to miss its queues")
        assert not setting_up.done()
        store.mode = Mode.PASS
        await setting_up
        await _converges(made, amqp_url)


def _stop(node: PrivateNode) -> str:
    """The address of a virtual host on a broker that is not there."""
    vhost = node.broker().vhost("gateway-test")
    node.settle()
    node.stop()
    return vhost.url


async def _start(made: World, *roles: str) -> None:
    """One after the other; workers wait aloud for their store, which is away."""
    for role in roles:
        [name] = await made.stack.start(role)
        word = "process.started" if role == "ingress" else "store.waiting"
        await until(partial(_says, made, name, word), 20, what=name)


def _says(made: World, name: str, word: str) -> bool:
    return word in made.stack.logs(name)


async def _has_schema(made: World) -> bool:
    return (await made.stack.run("-m", "ops", "db", "check")).code == 0


async def _asks_for_setup(made: World) -> bool:
    async with aiohttp.ClientSession() as http, http.get(f"{made.stack.url}/readyz") as answer:
        return answer.status == 503 and "gateway setup" in await answer.text()


async def _converges(made: World, amqp_url: str) -> None:
    """The whole story works, and nobody had to be started again."""
    async with recorder(amqp_url, made):
        await made.stack.wait_ready()
        await made.onboard(CONNECTION)
        running = [f"{role}-1" for role in ("sandbox", "ingress", *WORKERS)]
        assert sorted(made.stack.names()) == sorted(running)
        assert all(made.stack.logs(name).count("process.started") == 1 for name in running[1:])
