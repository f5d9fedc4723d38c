"""What no request may exceed: size, encoding, headers, and the time that its body takes (RELIABILITY A1 to A5)."""

from __future__ import annotations

import asyncio

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

MAX_BODY = 256 * 1024
BODY_SECONDS = 5.0
_ONCE = (hdrs.AUTHORIZATION, hdrs.CONTENT_TYPE)


@web.middleware
async def limits_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses what is too large, encoded or ambiguous before anything reads it; drops the header that names us.

    Raises:
        aiohttp.web.HTTPException: 400, 413 or 415.
    """
    if (request.content_length or 0) > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY)
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise web.HTTPUnsupportedMediaType  # the hash covers the bytes as they came
    for name in _ONCE:
        if len(request.headers.getall(name, ())) > 1:
            raise web.HTTPBadRequest
    try:
        return await handler(request)
    except (web.RequestPayloadError, ConnectionError):
        raise web.HTTPBadRequest from None  # the body broke off


async def read_body(request: web.Request) -> bytes:
    """The body, at most 256 KiB within 5 s; to be asked for once.

    Raises:
        aiohttp.web.HTTPRequestTimeout: it comes too slowly.
        aiohttp.web.HTTPRequestEntityTooLarge: it is too large; the application has `client_max_size=MAX_BODY`.
    """
    if request.content.is_eof():  # it is here already
        return _whole(request.content.read_nowait())
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


def _whole(body: bytes) -> bytes:
    if len(body) > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY)
    return body


async def drop_server_header(_request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`: nobody needs to know which versions answer."""
    response.headers.pop(hdrs.SERVER, None)
