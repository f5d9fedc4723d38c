"""Whom a request comes from when a proxy brings it, and by which scheme: what the nearest proxy we trust has seen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

HEADER = "X-Forwarded-For"
SCHEME_HEADER = "X-Forwarded-Proto"

Network = IPv4Network | IPv6Network

_HOST = re.compile(r"\[([^]]*)\](?::\d+)?|([^:]*):\d+")
"""With a port, as some proxies add it, or in brackets; an IPv6 address without brackets has no port."""


def client_of(remote: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The last address that is not one of the trusted proxies, walking back from `remote`. Pure.

    Each proxy appends whom it has seen, so that only what trusted ones have appended is believed; `forwarded` are the
    header's values.
    """
    client = remote
    for seen in reversed([_host(part.strip()) for value in forwarded for part in value.split(",")]):
        if _address(seen) is None or not _is_in(_address(client), trusted):
            break
        client = seen
    return client


def scheme_of(scheme: str, remote: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """`https` when a proxy that is trusted, the nearest one, says that the request came to it so. Pure."""
    told = forwarded[-1].split(",")[-1].strip().lower() if forwarded else ""
    return told if told in ("http", "https") and _is_in(_address(remote), trusted) else scheme


def forwarded_middleware(trusted: Sequence[Network]) -> Middleware:
    """Sets `request.remote` and `request.scheme` so for everything behind it."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if HEADER not in request.headers and SCHEME_HEADER not in request.headers:
            return await handler(request)
        forwarded = request.headers.getall(HEADER, [])
        remote = request.remote or ""
        client = client_of(remote, forwarded, trusted)
        scheme = scheme_of(request.scheme, remote, request.headers.getall(SCHEME_HEADER, []), trusted)
        same = (client, scheme) == (remote, request.scheme)
        return await handler(request if same else request.clone(remote=client, scheme=scheme))

    return middleware


def _host(seen: str) -> str:
    match = _HOST.fullmatch(seen)
    return seen if match is None else match[1] or match[2] or ""


def _is_in(address: IPv4Address | IPv6Address | None, networks: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Of an IPv4 address that is spelled as an IPv6 one: the IPv4 one."""
    try:
        parsed = ip_address(text)
    except ValueError:
        return None
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
