"""Whoever sends what they like to `python -m ingress`, on a real broker: no 500, nothing published, nobody waits.

Normal webhooks are sent beside it all the while, and must be answered in less than a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

import aio_pika
import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest

from common.broker.setup import declare_topology
from common.broker.topology import work_queues
from common.listen import raise_file_limit
from ops.broker import Vhost
from ops.stack import Stack, environment
from tests.hostile import CHUNKED, FORM, LAST, Webhooks, exchange, refused, unusual
from tests.ingress_app import CONNECTION, bearer, webhook
from tests.waiting import PATIENCE, until

HOSTILE, UNUSUAL = 98, 97
AT_ONCE = 40
IDLE = 2000
DEAF = 40 if hasattr(socket, "TCP_USER_TIMEOUT") else 0  # macOS cannot tell who takes nothing
MEGABYTES = 64
BESIDE_SECONDS = 1.0


@dataclass
class Victim:
    """One ingress process, and how those fare who use it as they should."""

    stack: Stack
    vhost: Vhost
    took: list[float] = field(default_factory=list)
    """How long each normal webhook took that was sent beside."""
    peak: int = 0
    """The most memory that was seen meanwhile."""

    @property
    def port(self) -> int:
        return int(self.stack.environment["HTTP_PORT"])

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.stack.pid("ingress-1"))

    def webhooks(self, connection_id: int) -> Webhooks:
        return Webhooks.of(connection_id, self.stack.environment["SECRET_KEYS"])

    @contextlib.asynccontextmanager
    async def in_use(self) -> AsyncIterator[None]:
        """Normal webhooks all the while, and at least one after it; what they and the memory took is asserted."""
        before, stop = self.process.memory_info().rss, threading.Event()
        using = asyncio.create_task(asyncio.to_thread(self._use, stop))
        try:
            yield
        finally:
            stop.set()
            await using
        assert median(self.took) < BESIDE_SECONDS, sorted(self.took)
        assert max(self.took) < BESIDE_SECONDS * PATIENCE, sorted(self.took)[-5:]  # a machine with much else to do
        assert self.peak - before < MEGABYTES * 2**20, f"{(self.peak - before) / 2**20:.0f} MiB more"

    def _use(self, stop: threading.Event) -> None:
        """In a thread of its own: what the event loop has to do with the others must not count."""
        headers, body = bearer(key=self.stack.environment["SECRET_KEYS"]), json.dumps(webhook())
        last = False
        while not last:
            last = stop.wait(0.1)
            began = time.monotonic()
            with contextlib.closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as http:
                http.request("POST", "/update", body, headers)
                assert http.getresponse().status == 200
            self.took.append(time.monotonic() - began)
            self.peak = max(self.peak, self.process.memory_info().rss)

    async def published(self) -> Counter[int]:
        """How many messages there are of which connection, in the fetch queue and among the dead."""
        found: Counter[int] = Counter()
        connection = await aio_pika.connect(self.vhost.url)
        async with connection:
            channel = await connection.channel()
            for name in ("syncaroo.fetch", "syncaroo.fetch.dead"):
                queue = await channel.get_queue(name)
                while message := await queue.get(no_ack=True, fail=False):
                    found[json.loads(message.body)["connectionId"]] += 1
        return found

    def complaints(self) -> list[str]:
        """What its log says of bugs."""
        words = ("request.failed", "Traceback", "Unhandled", "Error handling", '"exception"')
        return [line for line in self.stack.logs("ingress-1").splitlines() if any(word in line for word in words)]


@pytest.fixture
async def victim(vhost: Vhost, tmp_path: Path) -> AsyncIterator[Victim]:
    await declare_topology(vhost.url, work_queues([]))
    settings = environment(
        amqp_url=vhost.url,
        database_url=f"sqlite+aiosqlite:///{tmp_path / 'none.db'}",
        settings={"SYNCAROO_API_HOSTS": "api.syncaroo.com", "DRAIN_SECONDS": "0"},
    )
    async with Stack(settings, tmp_path / "stack") as stack:
        await stack.start("ingress")
        await stack.wait_ready()
        yield Victim(stack, vhost)


async def test_no_shape_of_a_request_gets_anything_through(victim: Victim) -> None:
    """T-ING-SMUGGLE, T-ING-BODY: refused with 4xx or by hanging up; no request is read out of another one's body."""
    sent = refused(victim.webhooks(HOSTILE))
    async with victim.in_use():
        answers = dict(zip(sent, await _exchanges(victim.port, sent.values()), strict=True))
    assert {name: statuses for name, statuses in answers.items() if not _is_refusal(statuses)} == {}
    assert set(await victim.published()) == {CONNECTION}
    assert victim.complaints() == []


async def test_what_leaves_no_doubt_is_served_once(victim: Victim) -> None:
    """What is refused is refused for what is wrong with it: the like of it that is right gets through, and once."""
    sent = unusual(victim.webhooks(UNUSUAL))
    for name, (request, count) in sent.items():
        statuses, got = await exchange(victim.port, request, 15)
        assert statuses.count(200) == count, (name, got)
        assert await victim.published() == {UNUSUAL: count}, name
    assert victim.complaints() == []


async def test_bodies_without_end_cost_neither_memory_nor_time(victim: Victim) -> None:
    """T-ING-BODY: each way to send too much, many times at once; all are answered, and left within 15 s."""
    begun = _endless(victim.webhooks(HOSTILE))
    async with victim.in_use():
        sending = [_pour(victim.port, *begun[name]) for name in begun for _ in range(AT_ONCE // 4)]
        answers = await asyncio.gather(*sending)
    names = [name for name in begun for _ in range(AT_ONCE // 4)]
    wrong = [(name, got[:80]) for name, got in zip(names, answers, strict=True) if got.split()[1:2] not in ENDINGS]
    assert wrong == []
    assert set(await victim.published()) == {CONNECTION}
    assert victim.complaints() == []


async def test_slow_silent_and_deaf_clients_are_left_and_no_other_waits(victim: Victim) -> None:
    """T-ING-SLOW: 2,000 idle sockets beside hundreds that drip or take no answer; each is left in time."""
    raise_file_limit()
    shapes = _slow(victim.webhooks(HOSTILE))
    files = victim.process.num_fds()
    async with victim.in_use(), _idle(victim.port, IDLE) as idle, _deaf(victim.port, DEAF):
        dripping = [_left(victim.port, *shape[:2]) for shape in shapes.values() for _ in range(AT_ONCE // 4)]
        took = await asyncio.gather(*dripping, *(_ended(*one) for one in idle))
        await until(lambda: victim.process.num_fds() <= files + 5, what="all of them are left, the deaf ones too")
    limits = [shape[2] for shape in shapes.values() for _ in range(AT_ONCE // 4)] + [SILENT] * IDLE
    names = [name for name in shapes for _ in range(AT_ONCE // 4)] + ["idle"] * IDLE
    late = {name: f"{one:.1f} s" for name, one, limit in zip(names, took, limits, strict=True) if one > limit}
    assert late == {}
    assert set(await victim.published()) == {CONNECTION}
    assert victim.complaints() == []


# --- many at once --------------------------------------------------------------------------------------------------


async def _exchanges(port: int, requests: Iterable[bytes]) -> list[list[int]]:
    """So many at a time, each until the end of its connection."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(request: bytes) -> list[int]:
        async with turns:
            return (await exchange(port, request, 15))[0]

    return await asyncio.gather(*map(one, requests))


def _is_refusal(statuses: list[int]) -> bool:
    """All that was answered was answered so; there may be no answer at all."""
    return all(400 <= status < 500 for status in statuses)


# --- too much ------------------------------------------------------------------------------------------------------

ENDINGS: tuple[list[bytes], ...] = ([b"400"], [b"401"], [b"404"], [b"408"], [b"413"], [])


def _endless(webhooks: Webhooks) -> Mapping[str, tuple[bytes, bytes]]:
    """By name: how it begins, and what comes then, again and again."""
    request, block = webhooks.request, b" " * 65_536
    chunk = b"%x\r\n%s\r\n" % (len(block), block)
    nobody = b"POST /update HTTP/1.1\r\nHost: x\r\n"
    return {
        "a length of a terabyte": (request(heads=b"Content-Length: 1099511627776\r\n", body=b"", length=False), block),
        "chunks": (request(heads=CHUNKED, body=b"", length=False), chunk),
        "one chunk": (request(heads=CHUNKED, body=b"ffffffffff\r\n", length=False), block),
        "a chunk's extension": (request(heads=CHUNKED, body=b"5;", length=False), b"x" * 65_536),
        "trailers": (request(heads=CHUNKED, body=b"0\r\n", length=False), b"X: y\r\n" * 10_000),
        "without a token": (nobody + CHUNKED + b"\r\n", chunk),
        "to nowhere": (request(b"POST /nothing HTTP/1.1", CHUNKED, b"", length=False), chunk),
        "with a question": (request(b"GET /nothing HTTP/1.1", CHUNKED, b"", length=False), chunk),
        "a form": (request(b"POST /api/oauth/token HTTP/1.1", FORM + CHUNKED, b"", length=False), chunk),
    }


async def _pour(port: int, first: bytes, then: bytes) -> bytes:
    """As much as is taken, until the connection ends → what came back.

    TimeoutError: it has not ended within 15 s.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reading, got = asyncio.create_task(reader.read()), b""
    try:
        async with asyncio.timeout(15):
            writer.write(first)
            while not reading.done():
                writer.write(then)
                await writer.drain()
                await asyncio.wait([reading], timeout=0.05)  # so that two cores have time for the others
    except ConnectionError:
        pass
    finally:
        with contextlib.suppress(ConnectionError):
            got = await reading
        writer.transport.abort()
    return got


# --- too slowly ----------------------------------------------------------------------------------------------------

PACE = 0.5
SILENT, BODY, KEPT = 14.0, 16.0, 21.0
"""Promised are 10 s for headers, 5 s and then 5 s for a body, 15 s between requests; a busy machine adds some."""


def _slow(webhooks: Webhooks) -> Mapping[str, tuple[bytes, bytes, float]]:
    """By name: how it begins, what comes again and again, and when it must have been left."""
    request = webhooks.request
    waiting = b"Content-Length: 1000\r\n"
    nobody = b"POST /update HTTP/1.1\r\nHost: x\r\n" + waiting + b"\r\n"
    alive = LAST.replace(b"Connection: close\r\n", b"")
    return {
        "headers": (b"POST /upd", b"a", SILENT),
        "one header": (b"POST /update HTTP/1.1\r\nHost: x\r\nX: ", b"a", SILENT),
        "blank lines": (b"", b"\r\n", SILENT),
        "a body": (request(heads=waiting, body=b"{", length=False), b" ", BODY),
        "no body": (request(heads=waiting, body=b"", length=False), b"", BODY),
        "100-continue": (request(heads=waiting + b"Expect: 100-continue\r\n", body=b"", length=False), b"", BODY),
        "chunks": (request(heads=CHUNKED, body=b"", length=False), b"1\r\n \r\n", BODY),
        "a chunk's extension": (request(heads=CHUNKED, body=b"5;", length=False), b"a", BODY),
        "a trailer": (request(heads=CHUNKED, body=webhooks.chunks(end=b"0\r\nX: "), length=False), b"a", BODY),
        "a body without a token": (nobody, b" ", BODY),
        "a body to nowhere": (request(b"POST /nothing HTTP/1.1", waiting, b"", length=False), b" ", BODY),
        "a body with a question": (request(b"GET /healthz HTTP/1.1", waiting, b"", length=False), b" ", BODY),
        "too large a body": (request(heads=b"Content-Length: 999999\r\n", body=b"", length=False), b" ", BODY),
        "a form": (request(b"POST /api/oauth/token HTTP/1.1", FORM + waiting, b"", length=False), b"a", BODY),
        "a second request": (alive + b"POST /update HTTP/1.1\r\nX: ", b"a", KEPT),
        "nothing more": (alive, b"", KEPT),
    }


async def _left(port: int, first: bytes, then: bytes) -> float:
    """Begin, and go on at the pace → after how many seconds the connection ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    ending = asyncio.create_task(_ended(reader, writer))
    while not (await asyncio.wait([ending], timeout=PACE))[0]:
        writer.write(then)
    return await ending


async def _ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
    """After how many seconds from now the other side ends it; 60: not within a minute."""
    began = time.monotonic()
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(60):
            while await reader.read(65_536):
                pass
    writer.transport.abort()
    return time.monotonic() - began


@contextlib.asynccontextmanager
async def _idle(port: int, count: int) -> AsyncIterator[list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        while len(opened) < count:
            opened += await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(100)))
        yield opened
    finally:
        for _, writer in opened:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def _deaf(port: int, count: int) -> AsyncIterator[None]:
    """Clients that ask for much again and again, and take nothing of it."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.setblocking(False)
            await loop.sock_connect(one, ("127.0.0.1", port))
            one.send(b"GET /api/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
        yield
