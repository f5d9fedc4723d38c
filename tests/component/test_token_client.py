"""The POST to Syncaroo's token endpoint: the guide's forms, and nothing that a stranger's answer can make of it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpServer

from tests.waiting import until
from workers.token import client as module
from workers.token.client import TokenClient
from workers.token.rules import NoReply, Reply

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def client_of(base_url: str) -> TokenClient:
    return TokenClient(
        base_url=base_url, client_id="xxyyzz", client_secret="s3cret&+", redirect_uri="https://yourapp.com/confirm"
    )


@pytest.fixture
def serve(aiohttp_server: AiohttpServer) -> Callable[[Answer], Awaitable[TokenClient]]:
    async def start(answer: Answer) -> TokenClient:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        server = await aiohttp_server(app)
        return client_of(str(server.make_url("")).rstrip("/"))

    return start


Serve = Callable[[Answer], Awaitable[TokenClient]]


async def test_the_forms_are_the_guides(serve: Serve) -> None:
    seen: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        fields = dict(parse_qsl(await request.text(), strict_parsing=True))
        seen.append((request.method, request.path_qs, request.headers["Content-Type"], fields))
        return web.json_response({})

    client = await serve(answer)
    await client.exchange("the/code")
    await client.refresh("the refresh token")
    both = {"clientId": "xxyyzz", "clientSecret": "s3cret&+"}
    form = "application/x-www-form-urlencoded"
    code = {"redirectUri": "https://yourapp.com/confirm", "code": "the/code", "grantType": "authorization_code"}
    refresh = {"refreshToken": "the refresh token", "grantType": "refresh_token"}
    assert seen == [("POST", "/api/token", form, both | code), ("POST", "/api/token", form, both | refresh)]


async def test_redirects_are_not_followed(serve: Serve) -> None:
    """RELIABILITY A10: a single-use token goes nowhere else."""
    calls: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        calls.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    reply = await (await serve(answer)).refresh("r")
    assert isinstance(reply, Reply)
    assert (reply.status, calls) == (307, ["/api/token"])


async def test_an_endless_answer_is_cut(serve: Serve) -> None:
    """RELIABILITY A12"""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 10_000)
        except ConnectionError:
            return response

    assert await (await serve(answer)).refresh("r") == Reply(200, b"")


@pytest.mark.parametrize("part", [b"", b'{"accessToken": "a'])
async def test_a_connection_that_dies_leaves_the_outcome_open(serve: Serve, part: bytes) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        if part:
            response = web.StreamResponse(headers={"Content-Length": "100"})
            await response.prepare(request)
            await response.write(part)
        request.transport.close()
        return web.Response()

    reply = await (await serve(answer)).refresh("r")
    assert isinstance(reply, NoReply)
    assert reply.sent


async def test_silence_is_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """RELIABILITY A11"""
    monkeypatch.setattr(module, "TOTAL_SECONDS", 0.1)
    done = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        await done.wait()
        return web.Response()

    reply = await (await serve(answer)).refresh("r")
    done.set()
    assert reply == NoReply("TimeoutError", sent=True)


async def test_an_answer_that_waited_for_a_stopped_process_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """T-RT-PAUSE: stopped for longer than the request may take, which Syncaroo has answered meanwhile."""
    loop = asyncio.get_running_loop()
    asked, stopped, answered = threading.Event(), threading.Event(), threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def syncaroo() -> None:
        caller, _ = listening.accept()
        with caller:
            caller.recv(65536)
            asked.set()
            assert stopped.wait(60)
            caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            answered.set()

    def stop() -> None:
        stopped.set()
        assert answered.wait(60)
        monkeypatch.setattr(loop, "time", lambda: time.monotonic() + module.TOTAL_SECONDS + 0.1)

    with listening, ThreadPoolExecutor(1) as pool:
        serving = pool.submit(syncaroo)
        asking = asyncio.create_task(client_of(f"http://127.0.0.1:{listening.getsockname()[1]}").refresh("r"))
        await until(asked.is_set)
        stop()
        assert await asking == Reply(200, b"{}")
        serving.result()


async def test_what_never_left_is_known(unused_tcp_port: int) -> None:
    """T-RT-NOTSENT"""
    for base_url in (f"http://127.0.0.1:{unused_tcp_port}", "http://nowhere.invalid"):
        reply = await client_of(base_url).refresh("r")
        assert isinstance(reply, NoReply)
        assert not reply.sent


async def test_proxies_of_the_environment_are_ignored(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({})

    assert await (await serve(answer)).refresh("r") == Reply(200, b"{}")


def test_its_secret_does_not_show() -> None:
    assert "s3cret" not in repr(client_of("https://app.syncaroo.com"))
