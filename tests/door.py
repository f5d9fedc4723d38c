"""The one address in front of several ingress processes: each request goes to one that is up, over a connection of its
own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from ops.children import free_port

_OWN = {"host", "connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "server", "date"}


@dataclass
class Door:
    """`up` are the addresses that requests may go to, in the order of preference; there must be one."""

    url: str
    up: list[str] = field(default_factory=list)

    async def pass_on(self, request: web.Request) -> web.Response:
        """Ask who is up, and answer what they answer."""
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN}
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
            http.request(
                request.method,
                self.up[0] + request.raw_path,
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
