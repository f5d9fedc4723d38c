"""A TCP proxy that misbehaves on order, to stand between a client and a broker, an API or a database."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from enum import StrEnum
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from ops.prove.listener import Listener


class Mode(StrEnum):
    """What the proxy does with connections and bytes, from the moment it is set."""

    PASS = "pass"  # noqa: S105  # a mode
    BLACKHOLE = "blackhole"
    """Nothing moves in either direction, as in a network partition; what is held is delivered at the next PASS."""
    RESET = "reset"
    """Every connection, old and new, is reset."""
    DELAY = "delay"
    """Every chunk waits for `delay` seconds."""
    SWALLOW_ANSWERS = "swallow-answers"
    """What the client sends arrives; what the server sends is lost. These connections are reset at the next change."""
    SWALLOW_REQUESTS = "swallow-requests"
    """The other way round."""
    CUT_ANSWERS = "cut-answers"
    """Of what the server sends next, half arrives, and the connection ends in good order."""
    CUT_REQUESTS = "cut-requests"
    """The other way round."""


class Cut(ConnectionError):
    """The connection ends here, and what was written before arrives."""


class Proxy(Listener):
    """`async with Proxy(host, port) as proxy:` listens on `proxy.port` of 127.0.0.1 and leads to `host:port`.

    `Proxy.before(url)` is one in front of a broker, by its URL.

    `delay` is in seconds. `reset_after` is a number of bytes from client to server after which a connection is reset.
    `accepted` counts connections, `sent` the bytes that went to the server, `answered` those that came back.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._target = (host, port)
        self._mode = Mode.PASS
        self._changed = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._robbed: set[asyncio.StreamWriter] = set()
        self.delay = 0.2
        self.reset_after: int | None = None
        self.accepted = self.sent = self.answered = 0

    @classmethod
    def before(cls, url: str) -> Self:
        parts = urlsplit(url)
        assert parts.hostname
        return cls(parts.hostname, parts.port or 5672)

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for writer in list(self._open if mode is Mode.RESET else self._robbed):
            _reset(writer)
        self._robbed.clear()

    def hang_up(self) -> None:
        """End every connection in good order (FIN), as a load balancer does, or a server that is killed."""
        for writer in list(self._open):
            writer.close()

    def url(self, url: str) -> str:
        """The same address, by way of the proxy."""
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{user}@127.0.0.1:{self.port}" if user else f"127.0.0.1:{self.port}").geturl()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for writer in list(self._open):
            _reset(writer)
        await super().__aexit__(kind, error, at)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._open.add(writer)
        try:
            await self._serve(reader, writer)
        except OSError:
            pass  # either side went: that is what this proxy is for
        finally:
            self._open.discard(writer)
            self._robbed.discard(writer)
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._pass_on()
        there, back = await asyncio.open_connection(*self._target)
        self._open.add(back)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._requests(reader, back))
                both.create_task(self._answers(there, writer))
        except* Cut:
            await _close(back)
            await _close(writer)
        except* OSError:
            pass
        finally:
            self._open.discard(back)
            _reset(back)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = 0
        while data := await reader.read(65536):
            await self._pass_on()
            if self.reset_after is not None and sent + len(data) >= self.reset_after:
                data = data[: self.reset_after - sent]
                writer.write(data)
                await writer.drain()
                raise ConnectionResetError
            if self._mode is Mode.SWALLOW_REQUESTS:
                self._robbed.add(writer)
                continue
            await self._write(writer, data, Mode.CUT_REQUESTS)
            sent += len(data)
            self.sent += len(data)
        raise ConnectionResetError  # one side is done: end both

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._pass_on()
            if self._mode is Mode.SWALLOW_ANSWERS:
                self._robbed.add(writer)
                continue
            await self._write(writer, data, Mode.CUT_ANSWERS)
            self.answered += len(data)
        raise ConnectionResetError

    async def _write(self, writer: asyncio.StreamWriter, data: bytes, cuts: Mode) -> None:
        """All of it, or half in the mode that cuts, and Cut is raised."""
        is_cut = self._mode is cuts
        writer.write(data[: len(data) // 2] if is_cut else data)
        await writer.drain()
        if is_cut:
            raise Cut

    async def _pass_on(self) -> None:
        """Returns when the mode lets bytes through; raises ConnectionResetError when it resets."""
        while self._mode is Mode.BLACKHOLE:
            await self._changed.wait()
        if self._mode is Mode.RESET:
            raise ConnectionResetError
        if self._mode is Mode.DELAY:
            await asyncio.sleep(self.delay)


async def _close(writer: asyncio.StreamWriter) -> None:
    """With FIN, after what is still to be sent."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes with RST, without what is still to be sent."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
