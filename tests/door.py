"""The one address in front of several ingress processes: the ones that are up take turns, and each
request has a connection of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from ops.children import free_port

_OWN = {"host", "connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "server", "date"}


@dataclass
class Door:
    """`up` are the addresses that requests may go to in turn; there must be one."""

    url: str
    up: list[str] = field(default_factory=list)
    _turns: Iterator[int] = field(default_factory=count, init=False, repr=False)

    async def pass_on(self, request: web.Request) -> web.Response:
        """Ask whose turn it is, and answer what they answer."""
        up = self.up[next(self._turns) % len(self.up)]
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN}
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
            http.request(
                request.method,
                up + request.raw_path,
                headers=headers,
                data=await request.read(),
                allow_redirects=False,
            ) as answer,
        ):
            back = [(name, value) for name, value in answer.headers.items() if name.lower() not in _OWN]
            return web.Response(status=answer.status, body=await answer.read(), headers=CIMultiDict(back))


@asynccontextmanager
async def door() -> AsyncIterator[Door]:
    """An open one, until the end of the block."""
    port = free_port()
    made = Door(f"http://127.0.0.1:{port}")
    app = web.Application(client_max_size=2**20)
    app.router.add_route("*", "/{path:.*}", made.pass_on)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield made
    finally:
        await runner.cleanup()
