"""Snapshots: a request on `syncaroo.snapshot` in, every listing's state into the queue that it names.

A snapshot may be long, so one message is one part of it: what comes behind is a message of its own, at the end of the
queue, so that several snapshots take turns. After a crash a part is sent again; versions settle that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from common.broker.consumer import Delivery
from common.broker.outgoing import Outgoing, outgoing
from common.broker.publisher import Publisher
from common.clock import monotonic_seconds
from common.errors import Permanent, Retryable
from common.logs import get_logger
from schemas.messages import SnapshotRequested
from workers.relay.snapshot_rules import after, end_on_the_wire, request_in, sent_by, state_on_the_wire
from workers.relay.store.snapshots import SnapshotStore

PART = 2000
"""Listings in one part, and a page more at most."""
PART_SECONDS = 8.0
"""No new page is begun after that: far below what a handler may take, and what a process has to end in."""

log = get_logger(__name__)


class Way(Protocol):
    """Into one queue; `common.broker.direct.Direct` is it."""

    async def send(self, messages: Sequence[Outgoing]) -> int:
        """How many of them, from the first on, are there; raises when none is."""


Open = Callable[[str], AbstractAsyncContextManager[Way]]
"""The way into the queue of this name."""


@dataclass(frozen=True)
class Part:
    """How far a snapshot has come."""

    listings: int
    """That have been sent, all parts together."""
    rest: SnapshotRequested | None
    """The request for what is left; None: that was all."""


class Snapshots:
    """Sends listings' states; no state of its own, so that any process may send the next part."""

    def __init__(self, store: SnapshotStore, open_way: Open, source: str, *, part: int = PART) -> None:
        self._store = store
        self._open = open_way
        self._source = source
        self._part = part

    async def send_part(self, request: SnapshotRequested) -> Part:
        """Send the next part; behind the last one the queue is told that it was all.

        Raises, when nothing at all could be sent:
            NoSuchQueue, MayNotSend, QueueFull, BrokerUnavailable, StoreUnavailable.
        """
        began = monotonic_seconds()
        reached = request
        rest: SnapshotRequested | None = request
        async with self._open(request.to) as way:
            while rest is not None and self._goes_on(request, rest, began):
                reached = rest
                try:
                    rest = await self._send_page(way, rest)
                except (Retryable, Permanent):
                    if rest is request:
                        raise
                    # What was sent is not sent again; the trouble, if it is still there, shows itself at once.
                    break
        return Part(sent_by(rest or reached), rest)

    async def send_all(self, request: SnapshotRequested, on_sent: Callable[[int], object]) -> int:
        """Send everything → how many listings; `on_sent` is told how many there are already.

        Raises, whatever was sent by then:
            NoSuchQueue, MayNotSend, QueueFull, BrokerUnavailable, StoreUnavailable.
        """
        rest: SnapshotRequested | None = request
        sent = 0
        async with self._open(request.to) as way:
            while rest is not None:
                sent = sent_by(rest)
                on_sent(sent)
                rest = await self._send_page(way, rest)
        return sent

    def _goes_on(self, begun: SnapshotRequested, rest: SnapshotRequested, began: float) -> bool:
        if rest is begun:
            return True
        return sent_by(rest) - sent_by(begun) < self._part and monotonic_seconds() - began < PART_SECONDS

    async def _send_page(self, way: Way, request: SnapshotRequested) -> SnapshotRequested | None:
        page = await self._store.page(request)
        if not page.listings:
            await way.send([end_on_the_wire(request, page.at, self._source)])
            return None
        sent = await way.send([state_on_the_wire(one, request, page.at, self._source) for one in page.listings])
        return after(request, page.listings[sent - 1], sent)


class SnapshotHandler:
    """Serves one request, or the next part of one."""

    def __init__(self, snapshots: Snapshots, publisher: Publisher) -> None:
        self._snapshots = snapshots
        self._publisher = publisher

    async def __call__(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            request = request_in(delivery.message(SnapshotRequested))
            part = await self._snapshots.send_part(request)
            if part.rest is not None:
                await self._publisher.publish(outgoing(part.rest, "snapshot", request.connection_id or 0))
            told = {"snapshot_id": request.snapshot_id, "to": request.to, "listings": part.listings}
            log.info("snapshot.completed" if part.rest is None else "snapshot.part_sent", **told)
