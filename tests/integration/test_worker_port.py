"""`WORKER_PORT` of real processes: alive at once, ready when they can work, unready while not, numbers always."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from common.broker.setup import declare_topology
from common.broker.topology import event_queues, work_queues
from common.settings import RetrySettings
from ops.broker import PrivateNode, Vhost
from ops.children import free_port
from ops.stack import Stack, environment
from tests.waiting import until


class Asked:
    """One worker process, and questions to it."""

    def __init__(self, stack: Stack, port: int, session: aiohttp.ClientSession) -> None:
        self.stack = stack
        self._url = f"http://127.0.0.1:{port}"
        self._session = session

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body; 0: nobody listens."""
        try:
            async with self._session.get(self._url + path) as response:
                return response.status, await response.text()
        except aiohttp.ClientConnectionError:
            return 0, ""

    async def is_ready(self) -> bool:
        return await self.get("/readyz") == (200, '{"status":"ready"}')

    async def is_unready(self, word: str) -> bool:
        status, body = await self.get("/readyz")
        return status == 503 and word in json.loads(body)["reason"]


async def stack_of(vhost: Vhost, database_url: str, folder: Path) -> tuple[Stack, int]:
    port = free_port()
    settings = environment(amqp_url=vhost.url, database_url=database_url, settings={"WORKER_PORT": str(port)})
    return Stack(settings, folder / "stack"), port


@pytest.fixture
async def asked(vhost: Vhost, database_url: str, tmp_path: Path) -> AsyncIterator[Asked]:
    stack, port = await stack_of(vhost, database_url, tmp_path)
    async with stack, aiohttp.ClientSession() as session:
        yield Asked(stack, port, session)


async def declare(vhost: Vhost) -> None:
    await declare_topology(vhost.url, [*work_queues(RetrySettings().retry_delays), *event_queues()])


async def test_all_stages_in_one_process_have_one_port_and_one_registry(asked: Asked, vhost: Vhost) -> None:
    await asked.stack.start("all")
    await until(lambda: asked.is_unready("gateway setup"), 30, "unready for want of queues")
    assert await asked.get("/healthz") == (200, '{"status":"alive"}')
    await declare(vhost)
    await until(asked.is_ready, 30, "ready")
    status, text = await asked.get("/metrics")
    assert status == 200
    of_every_stage = (
        "gateway_fetches",
        "gateway_reconcile_seconds",
        "gateway_relay_leader 1",
        "gateway_token_refreshes",
    )
    assert [name for name in (*of_every_stage, "process_resident_memory_bytes") if name not in text] == []


async def test_the_broker_goes_and_comes_back(private_node: PrivateNode, tmp_path: Path, database_url: str) -> None:
    vhost = private_node.broker().vhost("gateway-test")
    await declare(vhost)
    private_node.settle()
    stack, port = await stack_of(vhost, database_url, tmp_path)
    async with stack, aiohttp.ClientSession() as session:
        asked = Asked(stack, port, session)
        await stack.start("reconcile")
        await until(asked.is_ready, 30, "ready")
        private_node.kill()
        await until(lambda: asked.is_unready("broker"), 30, "unready without its broker")
        assert (await asked.get("/healthz"))[0] == 200
        private_node.start()
        await until(asked.is_ready, 60, "ready again")
        assert "gateway_messages_total" in (await asked.get("/metrics"))[1]


async def test_a_port_that_is_taken_is_told_in_one_line(asked: Asked) -> None:
    await asked.stack.start("relay")
    await until(lambda: _listens(asked), 20, "the first listens")
    done = await asked.stack.run("-m", "workers", "relay")
    assert done.code == 78
    (told,) = [line for line in done.output.splitlines() if not line.startswith("{")]
    assert told.startswith("WORKER_PORT: cannot listen there")
    assert "already in use" in told


async def _listens(asked: Asked) -> bool:
    return (await asked.get("/healthz"))[0] == 200
