"""Past the application: requests that come by the thousand go from their connection straight to their handler.

An application looks up each request's address, hands it through every middleware and puts each answer's headers
together one by one: together a third of what a webhook costs. Only what leaves nothing to decide goes straight; all
else that has the same address (another spelling or method, HTTP/1.0, a connection that ends with it, `Expect`) goes the
application's way to the same handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.typedefs import Handler

from common.clock import wall_seconds

STRAIGHT: web.AppKey[Mapping[str, Handler]] = web.AppKey("straight", dict)
"""Of an application: the handlers of `POST` by address as it comes. Their answers have a body and set no cookies."""

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def past(application: Handle, handlers: Mapping[str, Handler]) -> Handle:
    """What handles a server's requests: these handlers as far as they may, the application whatever is left."""

    def handle(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        handler = handlers.get(request.raw_path)
        return application(request) if handler is None or not is_plain(request) else _answered(handler, request)

    return handle


def is_plain(request: web.BaseRequest) -> bool:
    """Whether its answer is of HTTP/1.1, has a body, comes at once and leaves the connection open."""
    is_usual = request.method == hdrs.METH_POST and request.version == HttpVersion11 and request.keep_alive
    return is_usual and hdrs.EXPECT not in request.headers


async def _answered(handler: Handler, request: web.BaseRequest) -> web.StreamResponse:
    assert isinstance(request, web.Request)
    answer = await handler(request)
    assert isinstance(answer, web.Response)
    return _Answer(answer)


class _Answer(web.StreamResponse):
    """Leaves in one write, with the headers that it was given, its length and the date; nothing tells what answers."""

    def __init__(self, answer: web.Response) -> None:
        super().__init__(status=answer.status)
        self._answer = answer

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        answer, writer = self._answer, request.writer
        body = answer.body
        assert isinstance(body, bytes)
        headers = answer.headers
        headers[hdrs.CONTENT_LENGTH] = str(len(body))
        headers[hdrs.DATE] = _date(wall_seconds())
        await writer.write_headers(f"HTTP/1.1 {answer.status} {answer.reason}", headers)
        await writer.write_eof(body)
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """It has left as a whole."""


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
