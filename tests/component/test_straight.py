"""Webhooks that go past the application: the same answers as by way of it, whoever asks and however."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from itertools import pairwise

import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from common.straight import STRAIGHT
from ingress.webhook import handler
from tests.component.served import Served, hang_up
from tests.ingress_app import bearer, webhook
from tests.waiting import until

GOOD = json.dumps(webhook()).encode()
ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f-]{27}")


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with Served() as made:
        yield made


def request(
    body: bytes = GOOD, *, path: str = "/update", version: str = "1.1", token: str | None = None, more: str = ""
) -> bytes:
    """A webhook as it goes over the wire."""
    token = bearer()["Authorization"] if token is None else token
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: {len(body)}\r\n{more}"
    return f"{head}\r\n".encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """The status line, the headers but for the date, which is one, and the body with ids made alike."""
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).rstrip().split(b"\r\n")
    headers = dict(line.split(b": ", 1) for line in lines)
    assert parsedate_to_datetime(headers.pop(b"Date").decode())
    return status, headers, ID.sub(b"ID", await reader.readexactly(int(headers[b"Content-Length"])))


async def both_ways(served: Served, sent: bytes) -> list[tuple[bytes, dict[bytes, bytes], bytes]]:
    """The answers to a request that goes straight and to the same one by way of the application."""
    answers = []
    for path in (b"/update", b"//update"):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(sent.replace(b"/update", path, 1))
        answers.append(await answer(reader))
        await hang_up(writer)
    return answers


async def test_what_goes_straight_is_every_webhook_as_syncaroo_sends_it(served: Served) -> None:
    straight = served.app.get(STRAIGHT, {})
    assert set(straight) == {"/update", "/update/", "/api/update", "/api/update/"}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(), b"HTTP/1.1 200 OK"),
        (request(b"{"), b"HTTP/1.1 400 Bad Request"),
        (request(b'{"connectionId":99,"connection_id":98}'), b"HTTP/1.1 400 Bad Request"),
        (request(token="Bearer x"), b"HTTP/1.1 401 Unauthorized"),
        (request(token=bearer(age=4000)["Authorization"]), b"HTTP/1.1 401 Unauthorized"),
        (request(token=bearer(98)["Authorization"]), b"HTTP/1.1 403 Forbidden"),
        (request(b" " * 300_000), b"HTTP/1.1 413 Content Too Large"),
        (request(more="Content-Encoding: gzip\r\n"), b"HTTP/1.1 415 Unsupported Media Type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_the_answer_is_the_same_either_way(served: Served, sent: bytes, status: bytes) -> None:
    straight, usual = await both_ways(served, sent)
    assert (straight[1:], straight[0][:13]) == (usual[1:], status[:13])
    assert b"Server" not in straight[1]


async def test_a_broker_that_is_down_is_told_the_same_either_way(served: Served) -> None:
    served.broker.down = True
    straight, usual = await both_ways(served, request())
    for status, headers, _ in (straight, usual):
        assert (status[9:12], int(headers.pop(b"Retry-After")) > 0) == (b"503", True)
    assert straight[1:] == usual[1:]


async def test_a_bug_is_a_problem_either_way(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(handler, "decide", broken)
    straight, usual = await both_ways(served, request())
    assert straight == usual
    assert straight[0].startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize(
    ("sent", "begins", "ends"),
    [
        (request(version="1.0"), b"HTTP/1.0 200 OK", True),
        (request(version="1.0", more="Connection: keep-alive\r\n"), b"HTTP/1.0 200 OK", False),
        (request(more="Connection: close\r\n"), b"HTTP/1.1 200 OK", True),
        (request(path="/update?x=1"), b"HTTP/1.1 200 OK", False),
        (request(path="http://x/update"), b"HTTP/1.1 200 OK", False),
        (request(more="Expect: 100-continue\r\n"), b"HTTP/1.1 100 Continue", False),
        (request(more="Expect: more\r\n"), b"HTTP/1.1 417 Expectation Failed", False),
    ],
)
async def test_what_leaves_something_to_decide_goes_the_applications_way(
    served: Served, sent: bytes, begins: bytes, ends: bool
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(sent)
    assert (await reader.readline()).rstrip() == begins
    if ends:
        assert b'"status":"accepted"' in await reader.read()
    await hang_up(writer)


async def test_requests_that_wait_on_one_connection_are_answered_in_their_order(served: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    unusual = request(path="//update", token="Bearer x")
    writer.write(request() + unusual + request(b"{") + request())
    assert [(await answer(reader))[0][9:12] for _ in range(4)] == [b"200", b"401", b"400", b"200"]
    await hang_up(writer)


async def test_a_body_that_comes_later_is_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    read = bytearray()
    take = RequestHandler.data_received

    def taken(self: RequestHandler, data: bytes) -> None:
        read.extend(data)
        take(self, data)

    monkeypatch.setattr(RequestHandler, "data_received", taken)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    sent = request()
    for start, end in pairwise((0, len(sent) - 300, len(sent) - 10, len(sent))):
        writer.write(sent[start:end])
        await until(lambda end=end: len(read) == end)  # type: ignore[misc]  # mypy infers no lambda with a default
    assert (await answer(reader))[0] == b"HTTP/1.1 200 OK"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (GOOD[:100], GOOD[100:])) + b"0\r\n\r\n"
    length = f"Content-Length: {len(GOOD)}".encode()
    writer.write(request().replace(length, b"Transfer-Encoding: chunked").removesuffix(GOOD) + chunks)
    assert (await answer(reader))[0] == b"HTTP/1.1 200 OK"
    assert len(served.broker.published) == 2
    await hang_up(writer)


async def test_a_status_without_a_body_is_left_to_the_application() -> None:
    async with Served(webhook_success_status=204) as served:
        assert STRAIGHT not in served.app
        assert await served.send() == 204


async def test_an_application_without_such_addresses_is_served_as_it_is() -> None:
    async with Served(is_ops=True) as served:
        assert isinstance(served.app, web.Application)
        assert STRAIGHT not in served.app
        assert await served.get("/healthz") == (200, {"status": "alive"})
