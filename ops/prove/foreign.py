"""A host that is nobody of ours: whatever is sent there went astray."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from aiohttp import hdrs, web

from ops.children import free_port


class Foreign:
    """`async with Foreign() as foreign: …`; `seen` are the requests that came, and whether a token came along."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._port = free_port()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._came)
        self._runner = web.AppRunner(app, access_log=None)

    @property
    def url(self) -> str:
        """An address there, as an item of Syncaroo's has."""
        return f"http://127.0.0.1:{self._port}/v1/locations/1198"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _came(self, request: web.Request) -> web.Response:
        what = "with a token" if hdrs.AUTHORIZATION in request.headers else "without a token"
        self.seen.append(f"{request.method} {request.path} {what}")
        return web.json_response({"ID": "1198", "Name": "not Syncaroo's"})
