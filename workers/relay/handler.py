"""The relay's flow: oldest unpublished first, many in flight, at most one unconfirmed per listing."""

from __future__ import annotations

import asyncio
from typing import Protocol

from common.broker.broadcast import LINE_LIMIT, Heard
from common.broker.publisher import Outgoing
from common.clock import monotonic_seconds
from common.errors import BrokerUnavailable, StoreUnavailable
from common.logs import get_logger
from common.process import pause
from common.store.leader import Leadership
from workers.relay.rules import PendingEvent, Window, on_the_wire
from workers.relay.store.events import EventStore

IN_FLIGHT = LINE_LIMIT // 2
WINDOW = 2000
"""Events held at most; the rest waits in the store."""
POLL_SECONDS = 1.0
AWAY_SECONDS = 1.0
GATHER_SECONDS = 0.02
"""What leaves within this time is marked in one transaction; a relay that dies has so much more to publish again."""
END_SECONDS = 8.0
"""What is under way at the end is waited for so long; then it is left to the next relay, as a duplicate."""
TOLD_EVERY_SECONDS = 60.0

log = get_logger(__name__)


class Broadcast(Protocol):
    """What a relay needs of `common.broker.broadcast.Broadcast`."""

    async def publish(self, message: Outgoing) -> Heard:
        """Return once everybody has it, or the log; raise BrokerUnavailable when nobody knows."""


class Relay:
    """Publishes event rows while it leads, and stands by while another does."""

    def __init__(self, store: EventStore, broadcast: Broadcast, leadership: Leadership, source: str) -> None:
        self._store = store
        self._broadcast = broadcast
        self._leadership = leadership
        self._source = source
        self._alone = Alone()
        self.poked = asyncio.Event()
        """Set it when there may be something new."""

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; events in flight are confirmed or left for the next relay."""
        try:
            while not stop.is_set():
                try:
                    if await self._leadership.held():
                        await self._shift().run(stop)
                except StoreUnavailable as error:
                    log.warning("relay.waiting", reason=str(error))
                await pause(stop, AWAY_SECONDS)
        finally:
            await self._leadership.release()

    def _shift(self) -> Shift:
        return Shift(self._store, self._broadcast, self._leadership, self._source, self._alone, self.poked)


class Shift:
    """One term of leading: everything it holds is forgotten at its end, and read again by the next."""

    def __init__(
        self,
        store: EventStore,
        broadcast: Broadcast,
        leadership: Leadership,
        source: str,
        alone: Alone,
        poked: asyncio.Event,
    ) -> None:
        self._store = store
        self._broadcast = broadcast
        self._leadership = leadership
        self._source = source
        self._alone = alone
        self._poked = poked
        self._window = Window()
        self._under_way: set[asyncio.Task[None]] = set()
        self._marking: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._look_at = self._lead_until = self._send_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, or until another leads.

        Raises:
            StoreUnavailable: the lead is lost, or nothing can be read.
        """
        try:
            while not stop.is_set() and await self._leads():
                self._settled.clear()
                await self._look_for_more()
                self._send()
                self._mark()
                await _first_of(stop, self._settled, self._poked, seconds=POLL_SECONDS)
        finally:
            await self._end()

    async def _leads(self) -> bool:
        """Asked once a second: whoever was frozen finds out before anything else."""
        if monotonic_seconds() < self._lead_until:
            return True
        led = await self._leadership.held()
        self._lead_until = monotonic_seconds() + POLL_SECONDS
        return led

    async def _look_for_more(self) -> None:
        """Into the window, while there is more, when somebody said so, or when a second has passed."""
        due = self._poked.is_set() or monotonic_seconds() >= self._look_at
        if not due or len(self._window) > WINDOW // 2:
            return
        self._poked.clear()
        found = await self._store.pending(self._window.known, len(self._window.known) + WINDOW)
        self._window.add(found)
        self._look_at = monotonic_seconds() + (0 if found else POLL_SECONDS)

    def _send(self) -> None:
        if monotonic_seconds() < self._send_at:
            return
        while self._window.has_ready and len(self._under_way) < IN_FLIGHT:
            task = asyncio.create_task(self._publish(self._window.take()))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _publish(self, event: PendingEvent) -> None:
        try:
            heard = await self._broadcast.publish(on_the_wire(event, self._source))
        except BrokerUnavailable as error:
            self._window.put_back(event)
            self._wait_for_broker(error)
        except Exception:
            # Its lane stays where it is until the next shift; the others go on.
            log.exception("relay.failed", event_id=event.event_id, type=event.type, subject=event.subject)
        else:
            self._window.has_left(event)
            self._alone.count(heard)
        finally:
            self._settled.set()

    def _wait_for_broker(self, error: BrokerUnavailable) -> None:
        if monotonic_seconds() >= self._send_at:
            log.warning("relay.waiting", reason=str(error))
        self._send_at = monotonic_seconds() + AWAY_SECONDS

    def _mark(self) -> None:
        """One transaction at a time; what leaves meanwhile is in the next."""
        if self._window.left and (self._marking is None or self._marking.done()):
            self._marking = asyncio.create_task(self._mark_all())

    async def _mark_all(self, gather: float = GATHER_SECONDS) -> None:
        await asyncio.sleep(gather)
        events = list(self._window.left)
        try:
            await self._store.published(events)
        except StoreUnavailable as error:
            log.warning("relay.waiting", reason=str(error))
            await asyncio.sleep(AWAY_SECONDS)  # they stay in the window: nothing is published again for it
        else:
            self._window.marked(events)
            log.info("relay.published", events=len(events))
        finally:
            self._settled.set()

    async def _end(self) -> None:
        """What is under way is confirmed and marked, or left to the next."""
        tasks = {*self._under_way, *filter(None, [self._marking])}
        if tasks:
            await asyncio.wait(tasks, timeout=END_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._window.left:
            await self._mark_all(gather=0)


class Alone:
    """Counts the events that went past a subscriber, and says so now and then."""

    def __init__(self) -> None:
        self._untold = 0
        self._told_at: float | None = None

    def count(self, heard: Heard) -> None:
        """One more event, heard by all or not."""
        if heard is Heard.BY_ALL:
            return
        self._untold += 1
        now = monotonic_seconds()
        if self._told_at is None or now - self._told_at >= TOLD_EVERY_SECONDS:
            log.warning(
                "relay.past_a_subscriber",
                events=self._untold,
                why="a queue bound to syncaroo.events is full, or is a quorum queue without a leader",
            )
            self._untold, self._told_at = 0, now


async def _first_of(*events: asyncio.Event, seconds: float) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
