"""The ingress' application on a real port, as `python -m ingress` serves it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, Self

import aiohttp

from common.listen import Listener
from ingress.app import Parts, create_app, create_ops_app
from tests.ingress_app import FakeBroker, bearer, settings, webhook


class Served:
    """`async with` it; `changes` are those of the settings. `is_ops`: what `OPS_PORT` serves."""

    def __init__(self, *, is_ops: bool = False, **changes: Any) -> None:
        chosen = settings(**changes)
        self.broker = FakeBroker()
        self.parts = Parts(chosen, self.broker)
        self.app = (create_ops_app if is_ops else create_app)(chosen, self.parts)
        self.listener = Listener(self.app, "127.0.0.1", 0, "HTTP_PORT")
        self.port = 0

    async def __aenter__(self) -> Self:
        self.port = await self.listener.start()
        self.url = f"http://127.0.0.1:{self.port}"
        self.session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self.listener.close()
        await self.parts.store.close()

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path) as response:
            return response.status, json.loads(await response.read())

    async def send(self) -> int:
        async with self.session.post(f"{self.url}/update", data=json.dumps(webhook()), headers=bearer()) as response:
            return response.status

    async def raw(self, request: bytes) -> bytes:
        """What comes back until the server closes or says no more."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(5):
                answer = await reader.readuntil(b"\r\n\r\n")
        await hang_up(writer)
        return answer


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
