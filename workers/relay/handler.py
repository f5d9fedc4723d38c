"""The relay's flow: oldest unpublished first, many in flight, at most one unconfirmed per listing."""

from __future__ import annotations

import asyncio
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from common import tracing
from common.broker.broadcast import LINE_LIMIT, Heard, NotInLog
from common.broker.outgoing import Outgoing
from common.clock import monotonic_seconds
from common.errors import BrokerUnavailable, StoreUnavailable
from common.logs import bound, get_logger
from common.process import Bugs, pause
from common.store.leader import Leadership
from workers.relay.metrics import RelayMetrics
from workers.relay.rules import PendingEvent, Window, ids_of, on_the_wire
from workers.relay.store.events import EventStore

IN_FLIGHT = LINE_LIMIT // 2
LOOK = 2000
"""Events that one look at the store considers."""
POLL_SECONDS = 1.0
AWAY_SECONDS = 1.0
GATHER_SECONDS = 0.02
"""What leaves within this time is marked in one transaction; a relay that dies has so much more to publish again."""
END_SECONDS = 8.0
"""What is under way at the end is waited for so long; then it is left to the next relay, as a duplicate."""
TOLD_EVERY_SECONDS = 60.0
PASSED_BY_SECONDS = 15.0
"""A term in which a listing was passed by ends after so long: the next one tries it again."""

log = get_logger(__name__)


class Broadcast(Protocol):
    """What a relay needs of `common.broker.broadcast.Broadcast`."""

    async def publish(self, message: Outgoing) -> Heard:
        """Return once everybody has it, or the log; raise BrokerUnavailable when nobody knows."""

    async def publish_to_log(self, message: Outgoing) -> Heard:
        """Return once the log has it: everybody was given it before."""


class Signal:
    """Wakes the relay; a poke also says that there may be something new."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._poked = True

    def poke(self) -> None:
        """There may be new events."""
        self._poked = True
        self._event.set()

    def wake(self) -> None:
        """Something that was under way has come to its end."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Until one of both, or that long; what comes in the same turn of the event loop is one."""
        if not self._event.is_set():
            await pause(self._event, seconds)
        self._event.clear()

    async def wake_at(self, stop: asyncio.Event) -> None:
        """Wake at `stop`, too."""
        await stop.wait()
        self.wake()

    def take_poke(self) -> bool:
        """Whether somebody has poked since this was last asked."""
        poked, self._poked = self._poked, False
        return poked


class PastSubscribers:
    """Counts the events that went past a subscriber, and says so: the first at once, the others once a minute."""

    def __init__(self) -> None:
        self._untold = self._total = 0
        self._told_at: float | None = None

    def count(self, heard: Heard) -> None:
        """One more event, heard by all or not."""
        if heard is Heard.BY_THE_LOG_ALONE:
            self._untold += 1
            self._total += 1

    def tell(self) -> None:
        """Called again and again."""
        now = monotonic_seconds()
        if not self._untold or (self._told_at is not None and now - self._told_at < TOLD_EVERY_SECONDS):
            return
        why = "a queue bound to syncaroo.events is full, or is a quorum queue without a leader"
        log.warning("relay.past_a_subscriber", events=self._untold, since_start=self._total, why=why)
        self._untold, self._told_at = 0, now


@dataclass(frozen=True)
class Parts:
    """What a relay works with."""

    store: EventStore
    broadcast: Broadcast
    leadership: Leadership
    source: str
    signal: Signal = field(default_factory=Signal)
    past: PastSubscribers = field(default_factory=PastSubscribers)
    metrics: RelayMetrics = field(default_factory=RelayMetrics)


class Relay:
    """Publishes event rows while it leads, and stands by while another does."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._bugs = Bugs("relay.bug")

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; events in flight are confirmed or left for the next relay."""
        try:
            while not stop.is_set():
                try:
                    if await self._parts.leadership.held():
                        with self._parts.metrics.leads.track_inprogress():
                            await Shift(self._parts).run(stop)
                except StoreUnavailable as error:
                    log.warning("relay.waiting", reason=str(error))
                except Exception as error:  # noqa: BLE001  # the next term reads everything again
                    self._bugs.survive(error)
                await pause(stop, AWAY_SECONDS)
        finally:
            await self._parts.leadership.release()


class Shift:
    """One term of leading: everything it holds is forgotten at its end, and read again by the next."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._window = Window()
        self._given: set[str] = set()
        """Ids of events that everybody was given and that only the log lacks."""
        self._under_way: set[asyncio.Task[None]] = set()
        self._marking: asyncio.Task[None] | None = None
        self._look_at = self._lead_until = self._send_at = 0.0
        self._in_trouble = False
        """The broker took nothing at last; what is held is read again before it is sent: it may have been erased."""
        self._look_below = -1
        """There is more in the store, for when so few are left in the window."""
        self._ends_at = math.inf

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, until another leads, or until it is time for a new term.

        Raises:
            StoreUnavailable: the lead is lost, or nothing can be read.
        """
        stopping = asyncio.create_task(self._parts.signal.wake_at(stop))
        try:
            while not stop.is_set() and monotonic_seconds() < self._ends_at and await self._leads():
                self._forget_after_trouble()
                await self._look_for_more()
                self._send()
                self._mark()
                self._parts.past.tell()
                await self._parts.signal.wait(POLL_SECONDS)
        finally:
            stopping.cancel()
            await self._end()

    async def _leads(self) -> bool:
        """Asked once a second: whoever was frozen finds out before anything else."""
        if monotonic_seconds() < self._lead_until:
            return True
        led = await self._parts.leadership.held()
        self._lead_until = monotonic_seconds() + POLL_SECONDS
        return led

    def _forget_after_trouble(self) -> None:
        if self._in_trouble and monotonic_seconds() >= self._send_at:
            self._window.forget_ready()
            self._look_at = 0.0

    async def _look_for_more(self) -> None:
        """Into the window: when somebody has poked, when a second has passed, or when it has room for what was left."""
        if self._window.is_full or self._window.ready >= IN_FLIGHT or not self._is_look_due():
            return
        limit = len(self._window.known) + (IN_FLIGHT if self._in_trouble else LOOK)
        waiting = await self._parts.store.oldest(limit, self._window.passed_by)
        if chosen := self._window.choose(waiting):
            self._window.add(await self._parts.store.events_at(chosen))
        self._look_at = monotonic_seconds() + POLL_SECONDS
        # Not whether it is full now: what has left meanwhile has been marked, and makes room.
        more = len(waiting) == limit or self._window.left_some
        self._look_below = len(self._window) // 2 if more else -1

    def _is_look_due(self) -> bool:
        poked = self._parts.signal.take_poke()
        has_room = len(self._window) <= self._look_below or self._window.has_drained
        return poked or has_room or monotonic_seconds() >= self._look_at

    def _send(self) -> None:
        if monotonic_seconds() < self._send_at:
            return
        while self._window.ready and len(self._under_way) < IN_FLIGHT:
            task = asyncio.create_task(self._publish(self._window.take()))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _publish(self, event: PendingEvent) -> None:
        with bound(**ids_of(event)), _span(event):
            await self._publish_followed(event)

    async def _publish_followed(self, event: PendingEvent) -> None:
        try:
            heard = await self._publish_once(event)
        except BrokerUnavailable as error:
            if isinstance(error, NotInLog):
                self._given.add(event.event_id)
            self._window.put_back(event)
            tracing.note({"gateway.outcome": "waits_for_broker"})
            self._wait_for_broker(error)
        except Exception:
            # A bug, or a row of a later release: the others go on, and this listing is tried again in the next term.
            log.exception("relay.failed", event_id=event.event_id, type=event.type, subject=event.subject)
            tracing.note({"gateway.outcome": "failed"})
            self._window.pass_by(event)
            self._ends_at = min(self._ends_at, monotonic_seconds() + PASSED_BY_SECONDS)
        else:
            self._in_trouble = False
            self._given.discard(event.event_id)
            self._window.has_left(event)
            self._parts.past.count(heard)
            self._parts.metrics.events.labels(event.type, heard.value).inc()
            tracing.note({"gateway.outcome": f"heard_by_{heard.value}"})
            log.debug("relay.sent", event_id=event.event_id, type=event.type)
        finally:
            self._parts.signal.wake()

    async def _publish_once(self, event: PendingEvent) -> Heard:
        message = on_the_wire(event, self._parts.source)
        if event.event_id in self._given:
            return await self._parts.broadcast.publish_to_log(message)
        return await self._parts.broadcast.publish(message)

    def _wait_for_broker(self, error: BrokerUnavailable) -> None:
        """All wait: what one event meets now, the next one would, too."""
        if monotonic_seconds() >= self._send_at:
            log.warning("relay.waiting", reason=str(error))
        self._send_at, self._in_trouble = monotonic_seconds() + AWAY_SECONDS, True

    def _mark(self) -> None:
        """One transaction at a time; what leaves meanwhile is in the next."""
        if self._marking is not None and self._marking.done():
            marked, self._marking = self._marking, None
            marked.result()  # what is not the store's trouble ends the term, as any bug does
        if self._window.left and self._marking is None:
            self._marking = asyncio.create_task(self._mark_all())

    async def _mark_all(self, gather: float = GATHER_SECONDS) -> None:
        await asyncio.sleep(gather)
        events = list(self._window.left)
        try:
            self._parts.metrics.observe(await self._parts.store.published(events))
        except StoreUnavailable as error:
            log.warning("relay.waiting", reason=str(error))
            await asyncio.sleep(AWAY_SECONDS)  # they stay in the window: nothing is published again for it
        else:
            self._window.marked(events)
            log.info("relay.published", events=len(events))
        finally:
            self._parts.signal.wake()

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


def _span(event: PendingEvent) -> AbstractContextManager[None]:
    if not tracing.is_on():
        return nullcontext()
    attributes: tracing.Attributes = {
        "gateway.event_id": event.event_id,
        "gateway.event_type": event.type,
        "gateway.listing": event.subject if event.listing_id else None,
        **{f"gateway.{name}": value for name, value in ids_of(event).items() if name != "listing"},
    }
    return tracing.span("relay", attributes=attributes, parent=event.traceparent)
