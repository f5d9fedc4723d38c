"""Reading a posted form."""

from __future__ import annotations

from aiohttp import web

from ingress.limits import read_body
from ingress.parameters import parse_form

FORM_TYPE = "application/x-www-form-urlencoded"


async def read_form(request: web.Request) -> dict[str, str]:
    """The fields of a posted form, each once.

    Read from the bounded body: aiohttp's own `post()` has let multipart bodies past the limit (RELIABILITY A3).

    Raises:
        BadInput: it cannot be read, or a field occurs twice.
        aiohttp.web.HTTPUnsupportedMediaType: it is not `application/x-www-form-urlencoded`.
        aiohttp.web.HTTPRequestEntityTooLarge: it is too large.
        aiohttp.web.HTTPRequestTimeout: it comes too slowly.
    """
    if request.content_type != FORM_TYPE:
        raise web.HTTPUnsupportedMediaType
    return parse_form(await read_body(request))
