"""Reading what a server answers: never more than one has room for."""

from __future__ import annotations

import aiohttp


async def read_at_most(answer: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The body; None: it has more than `limit` bytes, of which no more were read than it took to see that."""
    body = bytearray()
    async for chunk in answer.content.iter_chunked(65_536):
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)
