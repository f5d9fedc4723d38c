"""A forward proxy on loopback, as companies have one: CONNECT for https, whole addresses for http."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit

from ops.prove.listener import Listener


class ForwardProxy(Listener):
    """`heads` are the requests that it saw in clear; `status` other than 200 is what every request gets instead of a
    way out.
    """

    def __init__(self, status: int = 200) -> None:
        super().__init__()
        self.status = status
        self.heads: list[str] = []

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
            await writer.drain()
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        method, target, _ = head.split(" ", 2)
        if self.status != 200:
            writer.write(f"HTTP/1.1 {self.status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            return
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        there, out = await asyncio.open_connection(parts.hostname, parts.port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            rest = head.replace(target, f"{parts.path}?{parts.query}" if parts.query else parts.path, 1)
            out.write(rest.replace("\r\n", "\r\nConnection: close\r\n", 1).encode())
        try:
            await asyncio.gather(_copy(reader, out), _copy(there, writer))
        finally:
            out.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
