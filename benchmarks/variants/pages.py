"""Syncaroo's API, as fast as it can be had: every GET is answered with the same page, made beforehand.

`python -m benchmarks.variants.pages PORT LISTINGS SECONDS [changing]`: a page of so many listings, each answer after so
many seconds; `changing`: a member of each listing is another one in each answer. `GET /served` says how many pages were
sent; nothing else is told apart, and nobody's token is looked at.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import cast

import uvloop

ASKED = b"GET /served "
REVISION = "0000000000"
"""Where the number of the answer goes."""


def listing(number: int) -> dict[str, object]:
    """Some 540 bytes, as an inventory has them: texts, numbers, lists, some of them nested."""
    return {
        "ID": f"{7000 + number}",
        "name": f"Meeting room {number} — quiet",
        "type": "meeting-room",
        "capacity": 4 + number % 20,
        "currency": "EUR",
        "rates": [
            {"unit": "hour", "price": 18.5 + number, "from": "2026-01-01T00:00:00Z", "minimum": 1},
            {"unit": "day", "price": 140 + number, "from": "2026-01-01T00:00:00Z", "minimum": 1},
        ],
        "address": {"street": "Example street 12", "city": "Amsterdam", "zip": "1017 AB", "country": "NL"},
        "amenities": ["wifi", "screen", "whiteboard", "coffee", "daylight"],
        "images": [f"https://images.example.com/rooms/{7000 + number}/front.jpg"],
        "active": True,
        "note": None,
    }


def answer(body: bytes) -> bytes:
    """The body with a head before it."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def page(listings: int, *, changing: bool) -> bytes:
    """The one and only page."""
    more = {"revision": REVISION} if changing else {}
    pages = {"count": 1, "current": 1, "first": None, "next": None, "prev": None, "last": None}
    data = [listing(number) | more for number in range(listings)]
    return json.dumps({"data": data, "pages": pages}, ensure_ascii=False).encode()


@dataclass
class Api:
    """What is answered, when, and how often that was."""

    answer: bytes
    seconds: float
    changing: bool
    served: int = 0

    def next(self) -> bytes:
        """One more answer."""
        self.served += 1
        return self.answer.replace(REVISION.encode(), b"%010d" % self.served) if self.changing else self.answer


class Connection(asyncio.Protocol):
    """One client; it asks again only when it has been answered."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._asked = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """A request, or a part of it."""
        self._asked += data
        if not self._asked.endswith(b"\r\n\r\n"):
            return
        asked, self._asked = self._asked, b""
        if asked.startswith(ASKED):
            self._transport.write(answer(str(self._api.served).encode()))
        elif self._api.seconds:
            asyncio.get_running_loop().call_later(self._api.seconds, self._send)
        else:
            self._send()

    def _send(self) -> None:
        self._transport.write(self._api.next())


async def main(port: int, listings: int, seconds: float, *, changing: bool) -> None:
    """Serve until the process is ended."""
    api = Api(answer(page(listings, changing=changing)), seconds, changing)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(api), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), changing=sys.argv[4:] == ["changing"]))
