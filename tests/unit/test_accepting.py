"""Connections that come together, on the event loop that the processes run on."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from aiohttp import web
from structlog.testing import capture_logs

from common import accepting
from common.accepting import AT_ONCE, AcceptingSite
from tests.waiting import until


def on_uvloop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Where libuv accepts one connection in a turn."""

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(test())

    return run


@asynccontextmanager
async def site(kind: Any = AcceptingSite, host: str = "127.0.0.1") -> AsyncIterator[tuple[web.AppRunner, int]]:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await kind(runner, host, 0).start()
    try:
        yield runner, runner.addresses[0][1]
    finally:
        await runner.cleanup()


def connected(runner: web.AppRunner) -> int:
    assert runner.server is not None
    return len(runner.server.connections)


async def after_ten_turns(kind: Any) -> int:
    async with site(kind) as (runner, port):
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(AT_ONCE)]
        for _ in range(10):
            await asyncio.sleep(0)
        found = connected(runner)
        for client in clients:
            client.close()
        return found


@on_uvloop
async def test_all_that_wait_are_accepted_in_one_turn() -> None:
    assert await after_ten_turns(web.TCPSite) <= 10, "what it is there for"
    assert await after_ten_turns(AcceptingSite) == AT_ONCE


@on_uvloop
async def test_without_files_it_waits_and_goes_on() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(accepting, "REST_SECONDS", 0.01)
        await _without_files(monkeypatch)


async def _without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as (runner, port):
        failing = [OSError(24, "Too many open files")] * 2
        real = socket.socket.accept

        def accept(listening: socket.socket) -> Any:
            if failing:
                raise failing.pop()
            return real(listening)

        monkeypatch.setattr(socket.socket, "accept", accept)
        with capture_logs() as logs, socket.create_connection(("127.0.0.1", port)):
            await until(lambda: connected(runner) == 1)
        assert [one["reason"] for one in logs] == ["EMFILE", "EMFILE"]


@on_uvloop
async def test_closed_it_takes_nobody() -> None:
    """Also when it was to go on after it had no files."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(accepting, "REST_SECONDS", 0.01)
        async with site() as (_, port):
            monkeypatch.setattr(socket.socket, "accept", _exhausted)
            with capture_logs() as logs, socket.create_connection(("127.0.0.1", port)):
                await until(lambda: logs)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with capture_logs() as logs:
            await asyncio.sleep(0.05)
        assert logs == []


def _exhausted(_: socket.socket) -> Any:
    raise OSError(errno.EMFILE, "Too many open files")


@on_uvloop
async def test_who_was_accepted_is_the_runners_to_end() -> None:
    """Nobody is served who came through the door while it was closed."""
    async with site() as (_, port):
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(AT_ONCE)]
        await asyncio.sleep(0)  # they are accepted, and have not begun
    for client in clients:
        client.settimeout(5)
        with client:
            assert client.recv(1) == b"", "it is closed"


@on_uvloop
async def test_one_that_is_gone_again_holds_nobody_up() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        failing = [OSError(errno.EPROTO, "Protocol error"), ConnectionAbortedError()]
        real = socket.socket.accept
        monkeypatch.setattr(socket.socket, "accept", lambda one: _fail(failing) if failing else real(one))
        async with site() as (runner, port):
            with capture_logs() as logs, socket.create_connection(("127.0.0.1", port)):
                await until(lambda: connected(runner) == 1)
            assert logs == []


def _fail(failing: list[OSError]) -> Any:
    raise failing.pop()


@on_uvloop
async def test_every_address_of_a_host_is_listened_on_or_none() -> None:
    async with site(host="0.0.0.0") as (runner, port):
        with socket.create_connection(("127.0.0.1", port)):
            await until(lambda: connected(runner) == 1)
        other = web.AppRunner(web.Application())
        await other.setup()
        with pytest.raises(OSError, match="in use"):
            await AcceptingSite(other, "0.0.0.0", port).start()
        assert other.addresses == []
        await other.cleanup()
