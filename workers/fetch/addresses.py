"""Where a name may lead: only to public addresses, however they are written. A name can be pointed anywhere."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

from common.errors import ForbiddenHost

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_TEREDO = IPv6Network("2001::/32")


class PublicResolver(AbstractResolver):
    """Refuses names that resolve to anything but public addresses. What it gives is what is connected to."""

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self._resolver = resolver or DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of the name.

        Raises:
            ForbiddenHost: one of them is not public.
        """
        found = await self._resolver.resolve(host, port, family)
        refuse_private([one["host"] for one in found])
        return found

    async def close(self) -> None:
        """Release the resolver."""
        await self._resolver.close()


def refuse_private(addresses: Sequence[str]) -> None:
    """Let only public addresses pass.

    Raises:
        ForbiddenHost: naming no address.
    """
    if not all(is_public(address) for address in addresses):
        raise ForbiddenHost("the name resolves to an address that is not public")


def refuse_private_literal(host: str) -> None:
    """Let names pass, which are resolved later, and public addresses: nobody resolves an address.

    Raises:
        ForbiddenHost: it is an address that is not public.
    """
    try:
        ip_address(host)
    except ValueError:
        return
    refuse_private([host])


def is_public(text: str) -> bool:
    """Whether the address belongs to the public internet; False for what is no address.

    An IPv6 address that stands for an IPv4 one (mapped, NAT64, 6to4) leads where that leads.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast
    if (inner := _embedded(address)) is not None:
        return is_public(str(inner))
    return address in _GLOBAL_UNICAST and address not in _TEREDO and address.is_global


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
