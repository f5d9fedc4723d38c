"""Breaks answers on purpose: connections reset, bodies cut, HTML for JSON. The aiohttp edge of `faults`."""

import socket
import struct
from email.utils import formatdate
from time import time

from aiohttp import web

from sandbox.faults import Fault

HTML = "<!doctype html><title>Maintenance</title><h1>We'll be right back</h1>"


def reset(request: web.Request) -> web.Response:
    """Reset the connection; the answer returned goes nowhere."""
    transport = request.transport
    if transport is not None:
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=444)


async def truncated(request: web.Request, whole: web.Response) -> web.StreamResponse:
    """Half of the body under the full Content-Length, then the end of the connection."""
    body = whole.body if isinstance(whole.body, bytes) else b""
    half = web.StreamResponse(status=whole.status, headers={"Content-Type": "application/json"})
    half.content_length = len(body)
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return half


def html(status: int = 200) -> web.Response:
    return web.Response(text=HTML, content_type="text/html", status=status)


def refusal(fault: Fault, error: str = "unavailable") -> web.Response:
    """The fault's status, with `Retry-After` in seconds or as a date when it asks for one."""
    headers = {}
    if fault.retry_after is not None:
        headers["Retry-After"] = (
            formatdate(time() + fault.retry_after, usegmt=True) if fault.as_date else str(fault.retry_after)
        )
    return web.json_response({"error": error}, status=fault.status, headers=headers)
