"""`python -m ingress` and a broker that ends, freezes, loses confirms, has no room or no queue, or lets nobody in.

Always: a webhook gets 200 when the broker has it, 503 with `Retry-After` within 5 s otherwise, and 200 again, without a
restart, once the trouble is over.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest

from common.broker.setup import declare_topology
from common.broker.topology import WORK, work_queues
from ops.broker import PrivateNode, Vhost
from ops.prove.proxy import Mode, Proxy
from ops.stack import Stack, environment
from tests.ingress_app import bearer, webhook
from tests.pipeline import Pipeline, pipeline
from tests.waiting import until

FETCH = "syncaroo.fetch"
ANSWER_SECONDS = 5.0
MANY, LARGE = 40, 200_000
GROWTH = 2 * MANY * LARGE
"""Of the memory, while four times as many are refused."""
ROOM = "/v1/locations/5/resources/7"
PASSWORD = "canary-of-the-tests"


@dataclass(frozen=True)
class Told:
    """How a webhook was answered; `delivery_id` is there when it was accepted."""

    status: int
    delivery_id: str | None = None


class Ingress:
    """One ingress process, and webhooks for it. Every answer is in time, and a refusal says when to come back."""

    def __init__(self, stack: Stack, http: aiohttp.ClientSession) -> None:
        self.stack = stack
        self._http = http
        self._headers = bearer(key=stack.environment["SECRET_KEYS"])

    async def send(self, body: dict[str, Any] | None = None) -> Told:
        data, began = json.dumps(body or webhook()), time.monotonic()
        async with self._http.post(f"{self.stack.url}/update", data=data, headers=self._headers) as answer:
            told = await answer.json(content_type=None)
            assert time.monotonic() - began < ANSWER_SECONDS
            if answer.status == 503:
                assert int(answer.headers["Retry-After"]) > 0
            return Told(answer.status, told.get("deliveryId"))

    async def send_many(self, count: int, body: dict[str, Any] | None = None) -> list[Told]:
        return await asyncio.gather(*(self.send(body) for _ in range(count)))

    async def accepts(self, body: dict[str, Any] | None = None) -> bool:
        return (await self.send(body)).status == 200

    async def refuses(self) -> bool:
        return (await self.send()).status == 503

    async def ready(self) -> tuple[int, str]:
        """Status, and the reason for it; 0: nobody answers."""
        try:
            async with self._http.get(f"{self.stack.url}/readyz") as answer:
                return answer.status, (await answer.json()).get("reason", "")
        except aiohttp.ClientConnectionError:
            return 0, ""

    async def is_ready(self) -> bool:
        return (await self.ready())[0] == 200

    async def is_unready(self) -> bool:
        return (await self.ready())[0] == 503

    async def failures(self, kind: str) -> float:
        """What `gateway_publish_failures_total` says."""
        async with self._http.get(f"{self.stack.url}/metrics") as answer:
            lines = [line for line in (await answer.text()).splitlines() if f'failures_total{{kind="{kind}"' in line]
            return sum(float(line.rpartition(" ")[2]) for line in lines)

    @property
    def rss(self) -> int:
        return int(psutil.Process(self.stack.pid("ingress-1")).memory_info().rss)


@asynccontextmanager
async def ingress(amqp_url: str, directory: Path, *, is_ready: bool = True, **settings: str) -> AsyncIterator[Ingress]:
    """The ingress at that broker, once it is ready."""
    own = {"DRAIN_SECONDS": "0", "SYNCAROO_API_HOSTS": "api.syncaroo.com", **settings}
    values = environment(amqp_url=amqp_url, database_url="", settings=own)
    async with Stack(values, directory) as stack, aiohttp.ClientSession() as http:
        await stack.start("ingress")
        opened = Ingress(stack, http)
        if is_ready:
            await until(opened.is_ready, 20, what="the ingress")
        yield opened


async def waiting(url: str) -> list[str]:
    """The ids of the webhooks that wait for the fetch worker; they go on waiting."""
    async with await aio_pika.connect(url) as connection:
        queue = await (await connection.channel()).get_queue(FETCH)
        found = []
        while message := await queue.get(fail=False, timeout=5):
            if message.headers["schema"] == "WebhookReceived":
                found.append(json.loads(message.body)["deliveryId"])
        return found


async def count(url: str, least: int) -> bool:
    return len(await waiting(url)) >= least


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_without_a_broker_it_refuses_and_what_was_accepted_is_there_when_the_broker_is_back(
    private_node: PrivateNode, private_vhost: Vhost, tmp_path: Path, how: str
) -> None:
    """T-BRK-DOWN, T-BRK-DURABLE."""
    await declare_topology(private_vhost.url, work_queues([]))
    async with ingress(private_vhost.url, tmp_path) as opened:
        private_node.settle()
        accepted = await opened.send_many(50)
        assert {one.status for one in accepted} == {200}
        await asyncio.to_thread(getattr(private_node, how))
        assert {one.status for one in await opened.send_many(20)} == {503}
        assert await until(opened.is_unready, 2, patience=1), "what was found before is remembered for a second"
        await asyncio.to_thread(private_node.start)
        assert sorted(await waiting(private_vhost.url))[:50] == sorted(str(one.delivery_id) for one in accepted)
        await until(opened.accepts, 30)


async def test_a_frozen_broker_is_refused_for_and_nothing_is_cancelled(
    private_node: PrivateNode, private_vhost: Vhost, tmp_path: Path
) -> None:
    """T-BRK-FREEZE. Longer than a heartbeat lasts, so that the connection is given up meanwhile."""
    await declare_topology(private_vhost.url, work_queues([]))
    async with ingress(private_vhost.url, tmp_path) as opened:
        private_node.freeze()
        began = time.monotonic()
        try:
            while time.monotonic() - began < 3 * 11 + 5:
                assert {one.status for one in await opened.send_many(5)} == {503}
        finally:
            private_node.resume()
        await until(opened.accepts, 30)
        assert "CancelledError" not in opened.stack.logs("ingress-1")


async def test_a_network_that_takes_everything_and_brings_nothing_is_refused_for(vhost: Vhost, tmp_path: Path) -> None:
    """T-BRK-FREEZE."""
    await declare_topology(vhost.url, work_queues([]))
    async with Proxy.before(vhost.url) as proxy, ingress(proxy.url(vhost.url), tmp_path) as opened:
        proxy.mode = Mode.BLACKHOLE
        assert {one.status for one in await opened.send_many(20)} == {503}
        proxy.mode = Mode.PASS
        await until(opened.accepts, 30)


@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_webhook_whose_confirm_is_lost_is_stored_twice_and_has_one_effect(
    vhost: Vhost, database_url: str, tmp_path: Path, is_reset: bool
) -> None:
    """T-BRK-LOSTCONFIRM. The broker has it, nobody hears so; Syncaroo sends it again."""

    async def twice(run: Pipeline) -> None:
        run.api.pages[ROOM] = {"ID": "7", "capacity": 10}
        body = webhook(metaData=webhook()["metaData"] | {"apiUrl": run.base_url + ROOM})
        hosts = run.base_url.removeprefix("http://")
        async with (
            Proxy.before(vhost.url) as proxy,
            ingress(
                proxy.url(vhost.url), tmp_path / "ingress", SYNCAROO_API_HOSTS=hosts, SYNCAROO_ALLOW_HTTP="true"
            ) as opened,
        ):
            proxy.mode = Mode.SWALLOW_ANSWERS
            sending = asyncio.create_task(opened.send(body))
            await until(partial(count, vhost.url, 1), what="it is stored")
            if is_reset:
                proxy.mode = Mode.RESET
            assert (await sending).status == 503
            proxy.mode = Mode.PASS
            await until(partial(opened.accepts, body), 30)
        assert await count(vhost.url, 2)

    async with pipeline(vhost.url, database_url, before=twice) as run:
        await until(lambda: run.events, what="the event")
        await until(partial(_is_empty, vhost.url), what="both are fetched")
        run.api.pages[ROOM] = {"ID": "7", "capacity": 12}
        await run.webhook(ROOM)
        await until(lambda: [one["data"]["current"]["capacity"] for one in run.events] == [10, 12])
        assert [one["data"]["version"] for one in run.events] == [1, 2]


async def _is_empty(url: str) -> bool:
    return not await waiting(url)


async def test_a_queue_without_room_is_refused_for(
    private_node: PrivateNode, private_vhost: Vhost, tmp_path: Path
) -> None:
    """T-BRK-NACK. What was refused is not there, what was accepted is."""
    await declare_topology(private_vhost.url, work_queues([]))
    async with ingress(private_vhost.url, tmp_path) as opened:
        name = private_vhost.name
        private_node.ctl("set_policy", "-p", name, "--apply-to", "queues", "full", f"^{FETCH}$", '{"max-length":5}')
        told = [await opened.send() for _ in range(20)]
        await until(opened.refuses, what="the queue is full")
        assert await opened.failures("refused") > 0
        stored = await waiting(private_vhost.url)
        assert {one.delivery_id for one in told if one.status == 200} <= set(stored)
        assert len(stored) < 20
        await _once(private_vhost.url, _empty)
        await until(opened.accepts)


async def test_what_no_queue_is_bound_to_is_refused_before_and_after_a_reconnect(
    private_node: PrivateNode, private_vhost: Vhost, tmp_path: Path
) -> None:
    """T-BRK-UNROUTABLE. The binding, the queue, the exchange are missing, one after the other."""
    url = private_vhost.url
    await declare_topology(url, work_queues([]))
    async with ingress(url, tmp_path) as opened:
        for lose in (_unbind, _delete_queue, _delete_exchange):
            await _once(url, lose)
            for _ in range(2):
                before = await opened.failures("unroutable") + await opened.failures("unavailable")
                assert {one.status for one in await opened.send_many(5)} == {503}, lose
                assert await opened.failures("unroutable") + await opened.failures("unavailable") == before + 5
                await _reconnect(private_node, private_vhost)
            await declare_topology(url, work_queues([]))
            await until(opened.accepts)
        assert await opened.failures("unroutable") >= 20


Change = Callable[[aio_pika.abc.AbstractChannel], Awaitable[object]]


async def _once(url: str, change: Change) -> None:
    async with await aio_pika.connect(url) as connection:
        await change(await connection.channel())


async def _unbind(channel: aio_pika.abc.AbstractChannel) -> None:
    await (await channel.get_queue(FETCH)).unbind(WORK, "fetch.*")


async def _empty(channel: aio_pika.abc.AbstractChannel) -> None:
    await (await channel.get_queue(FETCH)).purge()


async def _delete_queue(channel: aio_pika.abc.AbstractChannel) -> None:
    await channel.queue_delete(FETCH)


async def _delete_exchange(channel: aio_pika.abc.AbstractChannel) -> None:
    await channel.exchange_delete(WORK)


async def _reconnect(node: PrivateNode, vhost: Vhost) -> None:
    """Whoever is connected is cut off; returns when they are back."""
    before = _connections(node)
    assert before
    node.ctl("close_all_connections", "-p", vhost.name, "as ordered")
    await until(lambda: (found := _connections(node)) and not found & before, 20, what="the ingress is back")


def _connections(node: PrivateNode) -> set[str]:
    lines = node.ctl("list_connections", "name", "client_properties").splitlines()
    return {line.partition("\t")[0] for line in lines if "ingress" in line}


ALARMS = {
    "memory": (
        ["set_vm_memory_high_watermark", "absolute", "1000"],
        ["set_vm_memory_high_watermark", "absolute", "512MB"],
    ),
    "disk": (["set_disk_free_limit", "9999GB"], ["set_disk_free_limit", "50MB"]),
}


@pytest.mark.parametrize("alarm", ALARMS)
async def test_an_alarm_is_refused_for_in_flat_memory(
    private_node: PrivateNode, private_vhost: Vhost, tmp_path: Path, alarm: str
) -> None:
    """T-BRK-ALARM. What comes after all (P7) is a copy more of what Syncaroo sends again: T-DUP."""
    await declare_topology(private_vhost.url, work_queues([]))
    large = webhook(more="x" * LARGE)
    raise_it, end_it = ALARMS[alarm]
    async with ingress(private_vhost.url, tmp_path) as opened:
        assert {one.status for one in await opened.send_many(MANY, large)} == {200}
        private_node.ctl(*raise_it)
        try:
            await until(opened.refuses, what="the alarm")
            assert {one.status for one in await opened.send_many(MANY, large)} == {503}
            before = opened.rss
            for _ in range(4):
                assert {one.status for one in await opened.send_many(MANY, large)} == {503}
            assert opened.rss - before < GROWTH
        finally:
            private_node.ctl(*end_it)
        await until(opened.accepts, 30)


@pytest.mark.parametrize("why", ["another password", "no TLS", "no answer", "a slow answer"])
async def test_whom_the_broker_does_not_let_in_says_so_and_waits(vhost: Vhost, tmp_path: Path, why: str) -> None:
    """T-BRK-START. Never ready, no late answer, no password in the log, an orderly end; then it is let in."""
    await declare_topology(vhost.url, work_queues([]))
    async with Proxy.before(vhost.url) as proxy:
        right = proxy.url(vhost.url)
        wrong = {
            "another password": right.replace("@", f"{PASSWORD}@"),
            "no TLS": right.replace("amqp://", "amqps://").replace("@", f"{PASSWORD}@"),
        }
        proxy.mode = {"no answer": Mode.BLACKHOLE, "a slow answer": Mode.DELAY}.get(why, Mode.PASS)
        proxy.delay = 1.0
        async with ingress(wrong.get(why, right), tmp_path, is_ready=False) as opened:
            await until(partial(_is_unready, opened), 20)
            assert {one.status for one in await opened.send_many(5)} == {503}
            if why != "a slow answer":
                await until(lambda: "broker.waiting" in opened.stack.logs("ingress-1"), 20)
            assert await opened.stack.terminate("ingress-1") == 0
            proxy.mode = Mode.PASS
            await opened.stack.restart("ingress-1", {"AMQP_URL": right})
            await until(opened.is_ready, 20)
            assert await opened.accepts()
            assert PASSWORD not in opened.stack.logs("ingress-1")


async def _is_unready(opened: Ingress) -> bool:
    status, reason = await opened.ready()
    return status == 503 and reason.startswith("broker: ")
