"""Load over HTTP/1.1: so many connections, each with one request under way, for so many seconds.

A process of its own, so that what it costs is not counted with the service: `python -m benchmarks.load < order.json`
prints what came of it. Nothing but the status is looked at.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import cast
from urllib.parse import urlsplit

import msgspec
import uvloop

from common.listen import raise_file_limit

SUCCESS = "200"
REFUSED_SECONDS = 1.0
"""Until who was refused comes again: less than any `Retry-After`, so that there is always somebody."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to send; `bodies` take turns until the time is over, or are sent `once`."""

    url: str
    headers: dict[str, str]
    bodies: list[str]
    connections: int
    seconds: float
    once: bool = False


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """How many answers of each status came in how many seconds; how long successes took (ms: median, 99 of 100)."""

    statuses: dict[str, int]
    seconds: float
    median_ms: float
    p99_ms: float
    refused_p99_ms: float
    """Of all other answers; 0: there were none."""


class Sender(asyncio.Protocol):
    """One connection."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self._requests = requests
        self._until = self._began = self.last = 0.0
        self._buffer = b""
        self._is_through = False
        self.statuses: Counter[str] = Counter()
        self.took: list[float] = []
        self.took_to_refuse: list[float] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing is sent before all are there."""
        self._transport = cast("asyncio.Transport", transport)

    def begin(self, until: float) -> None:
        """The first request; the last is sent before `until`."""
        self._until = until
        self._send()

    def data_received(self, data: bytes) -> None:
        """An answer, or a part of it; then the next request, after a pause when this one was refused."""
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        self._buffer = b""
        self.last = time.perf_counter()
        status, took = head[9:12].decode(), self.last - self._began
        self.statuses[status] += 1
        if status == SUCCESS:
            self.took.append(took)
            self._send()
        else:
            self.took_to_refuse.append(took)
            asyncio.get_running_loop().call_later(REFUSED_SECONDS, self._send)

    def connection_lost(self, _: Exception | None) -> None:
        """The end, or a refusal."""
        if not self._is_through:
            self.statuses["lost"] += 1
        if not self.over.done():
            self.over.set_result(None)

    def _send(self) -> None:
        self._began = time.perf_counter()
        request = next(self._requests, None) if self._began < self._until else None
        if request is None:
            self._is_through = True
            self._transport.close()
        else:
            self._transport.write(request)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _percentile(seconds: Sequence[float], percent: int) -> float:
    """In ms; 0: there are none."""
    return seconds[len(seconds) * percent // 100] * 1000 if seconds else 0.0


async def run(order: Order) -> Done:
    """Send until the time is over."""
    raise_file_limit()
    url = urlsplit(order.url)
    host, port = url.hostname or "", url.port or 80
    lines = "".join(f"{name}: {value}\r\n" for name, value in order.headers.items())
    made = [
        f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n{lines}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        for body in order.bodies
    ]
    requests = iter(made) if order.once else cycle(made)
    loop = asyncio.get_running_loop()
    senders: list[Sender] = []
    for _ in range(order.connections):
        _, sender = await loop.create_connection(lambda: Sender(requests), host, port)
        senders.append(sender)
    began = time.perf_counter()
    for sender in senders:
        sender.begin(began + order.seconds)
    await asyncio.gather(*(sender.over for sender in senders))
    ended = max(sender.last for sender in senders)
    took = sorted(one for sender in senders for one in sender.took)
    refused = sorted(one for sender in senders for one in sender.took_to_refuse)
    statuses = sum((sender.statuses for sender in senders), Counter[str]())
    return Done(
        statuses=dict(statuses),
        seconds=ended - began,
        median_ms=_percentile(took, 50),
        p99_ms=_percentile(took, 99),
        refused_p99_ms=_percentile(refused, 99),
    )


if __name__ == "__main__":
    ordered = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(run(ordered))))
