"""`python -m ingress` on a real broker that is not set up yet, and without a database that is."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import pytest

from common.broker.setup import declare_topology
from common.broker.topology import work_queues
from ops.broker import Vhost
from ops.children import free_port
from ops.stack import Stack, environment
from tests.ingress_app import CONNECTION, bearer, webhook
from tests.waiting import until


class Asked:
    """One ingress process, and questions to it."""

    def __init__(self, stack: Stack, ops_port: int, session: aiohttp.ClientSession) -> None:
        self.stack = stack
        self.ops_url = f"http://127.0.0.1:{ops_port}"
        self._session = session

    async def get(self, path: str, *, base: str | None = None) -> tuple[int, str]:
        async with self._session.get((base or self.stack.url) + path, allow_redirects=False) as response:
            return response.status, await response.text()

    async def ready(self) -> tuple[int, Any]:
        try:
            status, body = await self.get("/readyz")
        except aiohttp.ClientConnectionError:
            return 0, {}
        return status, json.loads(body)

    async def send(self) -> int:
        headers = bearer(key=self.stack.environment["SECRET_KEYS"])
        url = f"{self.stack.url}/api/update/"
        async with self._session.post(url, data=json.dumps(webhook()), headers=headers) as response:
            return response.status


@pytest.fixture
async def asked(vhost: Vhost, tmp_path: Path) -> AsyncIterator[Asked]:
    ops_port = free_port()
    settings = environment(
        amqp_url=vhost.url,
        database_url=f"sqlite+aiosqlite:///{tmp_path / 'without-a-schema.db'}",
        settings={"OPS_PORT": str(ops_port), "DRAIN_SECONDS": "3", "SYNCAROO_API_HOSTS": "api.syncaroo.com"},
    )
    async with Stack(settings, tmp_path / "stack") as stack, aiohttp.ClientSession() as session:
        await stack.start("ingress")
        yield Asked(stack, ops_port, session)


async def test_from_a_broker_without_queues_to_an_orderly_end(asked: Asked, vhost: Vhost) -> None:
    """T-START-ORDER, T-TERM."""

    async def says_setup() -> bool:
        status, body = await asked.ready()
        return status == 503 and "gateway setup" in body["reason"] and body["store"] == "down"

    await until(says_setup, 20, "unready for want of queues")
    assert (await asked.get("/healthz"))[0] == 200
    assert await asked.send() == 503

    await declare_topology(vhost.url, work_queues([]))

    async def is_ready() -> bool:
        return await asked.ready() == (200, {"status": "ready", "store": "down"})

    await until(is_ready, 20, "ready")
    assert await asked.send() == 200
    await _ports(asked)

    ending = asyncio.create_task(asked.stack.terminate("ingress-1"))
    await until(lambda: _is_stopping(asked), what="unready first")
    assert await asked.send() == 200, "still served to those who have not heard"
    assert await ending == 0
    assert sorted(await _fetch_queue(vhost.url, 3)) == ["ResyncWanted", "WebhookReceived", "WebhookReceived"]


async def _ports(asked: Asked) -> None:
    for path in ("/metrics", "/admin/v1/status", "/console"):
        assert (await asked.get(path))[0] == 404
    assert (await asked.get("/metrics", base=asked.ops_url))[0] == 200
    assert (await asked.get("/admin/v1/status", base=asked.ops_url))[0] == 401
    assert (await asked.get("/healthz", base=asked.ops_url))[0] == 200
    assert (await asked.get("/connect"))[0] == 200
    for path in ("/connect", "/confirm", "/update", "/api/update"):
        assert (await asked.get(path, base=asked.ops_url))[0] == 404


async def _is_stopping(asked: Asked) -> bool:
    status, body = await asked.ready()
    return status == 503 and body["reason"] == "stopping"


async def _fetch_queue(url: str, count: int) -> list[str]:
    """The kinds of the messages that wait for the fetch worker, once there are so many."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.get_queue("syncaroo.fetch")
        found = []
        for _ in range(count):
            message = await queue.get(no_ack=True, timeout=5)
            assert message is not None
            assert json.loads(message.body)["connectionId"] == CONNECTION
            found.append(str(message.headers["schema"]))
        assert await queue.get(no_ack=True, fail=False) is None
    return found
