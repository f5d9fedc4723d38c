"""The log of events on the broker, read from any place on. It is only read: nothing is declared, nothing is taken.

Positions are the stream's own offsets: after a lost connection it goes on right behind the last one that was taken.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from aiormq.exceptions import ChannelAccessRefused

from common.broker.connection import bounded, close, connect_plainly
from common.broker.topology import EVENT_LOG
from common.clock import monotonic_seconds
from common.errors import BrokerUnavailable, GatewayError
from ops.broker.broker import without_password
from ops.moments import EARLIEST

CALL_SECONDS = 10.0
PREFETCH = 500
SKEW = timedelta(minutes=1)
"""How far the broker's clock may be from the store's: a stream finds a time by the broker's."""
QUIET_SECONDS = 0.3
"""So long nothing comes: what was there has been delivered."""
PROBE_SECONDS = 2.0
LONGEST_PAUSE = 5.0
MISSING_SECONDS = 60.0
"""So long a stream that was there may be missing: after a restart a broker opens queues one after another."""

Offset = int
Start = Offset | datetime | str
"""An offset, a time, or one of the broker's words: `first`, `last`, `next`."""


@dataclass(frozen=True)
class Logged:
    """A message of the log as it was published."""

    offset: Offset
    body: bytes


Take = Callable[[Sequence[Logged]], bool]
"""Is given messages in their order, each once; False when it has enough."""


class LogUnreadable(GatewayError):
    """There is no broker or no log; the text says what to do."""


class EventLog:
    """`syncaroo.events.log` of one broker; `tell` is given a line for a person when the connection goes and comes."""

    def __init__(self, url: str, tell: Callable[[str], None]) -> None:
        self._url = url
        self._tell = tell

    async def read(self, start: datetime | None, take: Take, *, follow: bool) -> None:
        """Hand on what is there from `start` on, then what comes; without `start` only what comes.

        Without `follow` it ends with what is there by now; without `start` that is all of it.

        Raises:
            LogUnreadable: no broker or no log when it began, or the log is gone for good.
        """
        since = max(start - SKEW, EARLIEST) if start else None
        async with self._first() as channel:
            last = await _last_offset(channel)
            if not follow and (last is None or (since and await _is_quiet_since(channel, since))):
                return
        position: Start = since or (_after(last) if follow else "first")
        reading = _Reading(position, _until(None if follow else last, take))
        await self._follow(reading, f"reading {EVENT_LOG}, Ctrl-C ends" if follow else "")

    async def _follow(self, reading: _Reading, news: str) -> None:
        """Over any number of connections; `news` is told once it reads, then what becomes of the connection."""
        pause, lost_at, lost = 0.1, 0.0, False
        while True:
            try:
                async with _channel(self._url) as channel:
                    await reading.begin(channel)
                    if news:
                        self._tell(news)
                    pause, lost = 0.1, False
                    await reading.run()
                    return
            except BrokerUnavailable as error:
                if not lost:
                    self._tell("the connection to the broker is lost, waiting for it")
                    lost, lost_at, news = True, monotonic_seconds(), "connected again, going on where it was"
                if _is_missing(error) and monotonic_seconds() - lost_at > MISSING_SECONDS:
                    raise self._unreadable(error) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    @contextlib.asynccontextmanager
    async def _first(self) -> AsyncIterator[AbstractChannel]:
        try:
            async with _channel(self._url) as channel:
                yield channel
        except BrokerUnavailable as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: BrokerUnavailable) -> LogUnreadable:
        where = without_password(self._url)
        if _is_missing(error):
            return LogUnreadable(f"There is no {EVENT_LOG} at {where}: run gateway setup, which declares it.")
        if isinstance(error.__cause__, ChannelAccessRefused):
            return LogUnreadable(f"{EVENT_LOG} at {where} may not be read by this user: its permissions say so.")
        if isinstance(error.__cause__, ChannelPreconditionFailed):
            return LogUnreadable(f"{EVENT_LOG} at {where} is no stream: gateway setup says what to do about it.")
        return LogUnreadable(
            f"No broker for events at {where} ({error}). Is it running, and do user, password and virtual host exist? "
            "EVENTS_AMQP_URL, else AMQP_URL, names it; gateway setup prepares it."
        )


class _Reading:
    """Goes on over any number of connections; knows what was taken."""

    def __init__(self, position: Start, take: Take) -> None:
        self._position = position
        self._take = take
        self._inbox = _Inbox(0)

    async def begin(self, channel: AbstractChannel) -> None:
        """Subscribe, behind what was taken.

        Raises:
            BrokerUnavailable: the log is missing, or the connection is lost.
        """
        self._inbox = await _subscribe(channel, self._position)
        if self._position == "next":  # nothing was there: whatever is there after a lost connection is new
            self._position = "first"

    async def run(self) -> None:
        """Until `take` has enough.

        Raises:
            BrokerUnavailable: the connection is lost, or the broker ended the subscription.
        """
        while True:
            batch = await self._inbox.batch()
            fresh = [one for one in map(_logged, batch) if self._is_new(one)]
            if fresh:
                self._position = fresh[-1].offset + 1
                if not self._take(fresh):
                    return
            await bounded(batch[-1].ack(multiple=True), CALL_SECONDS)

    def _is_new(self, message: Logged) -> bool:
        return not isinstance(self._position, int) or message.offset >= self._position


class _Inbox:
    """What a subscription delivers, in batches; knows when nothing will come any more."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        """How many messages the broker's figures, some seconds old, say are there."""
        self._queue: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()

    async def put(self, message: AbstractIncomingMessage) -> None:
        await self._queue.put(message)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been delivered that was not taken."""
        return self._queue.empty()

    def end(self, *_: Any) -> None:
        """The channel is closed, or the broker cancelled the subscription."""
        self._queue.put_nowait(None)

    async def batch(self) -> list[AbstractIncomingMessage]:
        """All that is there; waits for the first.

        Raises:
            BrokerUnavailable: this was all.
        """
        batch = [await self._queue.get()]
        while not self._queue.empty() and batch[-1] is not None:
            batch.append(self._queue.get_nowait())
        found = [message for message in batch if message is not None]
        if not found:
            raise BrokerUnavailable("broker: the connection was lost")
        if len(found) < len(batch):
            self.end()
        return found


@contextlib.asynccontextmanager
async def _channel(url: str) -> AsyncIterator[AbstractChannel]:
    """A channel of a connection of its own. Not the robust kind: that would begin again where it began first."""
    connection = await connect_plainly(url, "gateway tail")
    try:
        channel = await bounded(_open(connection), CALL_SECONDS)
        await bounded(channel.set_qos(prefetch_count=PREFETCH), CALL_SECONDS)
        yield channel
    finally:
        await close(connection)


async def _open(connection: AbstractConnection) -> AbstractChannel:
    return await connection.channel(publisher_confirms=False)


async def _subscribe(channel: AbstractChannel, start: Start) -> _Inbox:
    queue = await bounded(channel.get_queue(EVENT_LOG), CALL_SECONDS)  # declares passively
    inbox = _Inbox(queue.declaration_result.message_count or 0)
    channel.close_callbacks.add(inbox.end)
    underlying = await channel.get_underlay_channel()
    underlying.on_consumer_cancel_callbacks.add(inbox.end)  # a broker that stops or moves the stream says so
    await bounded(queue.consume(inbox.put, arguments={"x-stream-offset": start}), CALL_SECONDS)
    return inbox


async def _last_offset(channel: AbstractChannel) -> Offset | None:
    """The last one by now; None when there is nothing. The broker tells it only by delivering the last messages."""
    inbox = await _subscribe(channel, "last")
    last, deadline = None, monotonic_seconds() + PROBE_SECONDS
    while monotonic_seconds() < deadline:
        try:
            async with asyncio.timeout(PROBE_SECONDS if inbox.expected and last is None else QUIET_SECONDS):
                batch = await inbox.batch()
        except TimeoutError:
            break
        last = _logged(batch[-1]).offset
        await bounded(batch[-1].ack(multiple=True), CALL_SECONDS)
    return last


async def _is_quiet_since(channel: AbstractChannel, since: datetime) -> bool:
    """Whether nothing was published after that. The broker then delivers nothing, and says nothing either: what it
    delivers to a later subscription on the channel says that it is done with the first."""
    inbox = await _subscribe(channel, since)
    await _last_offset(channel)
    return inbox.is_empty


def _after(last: Offset | None) -> Start:
    return "next" if last is None else last + 1


def _until(last: Offset | None, take: Take) -> Take:
    """As `take`, with an end after the offset `last`."""
    if last is None:
        return take

    def limited(messages: Sequence[Logged]) -> bool:
        inside = [one for one in messages if one.offset <= last]
        return (not inside or take(inside)) and messages[-1].offset < last

    return limited


def _logged(message: AbstractIncomingMessage) -> Logged:
    offset = message.headers["x-stream-offset"]
    assert isinstance(offset, int)
    return Logged(offset, message.body)


def _is_missing(error: BrokerUnavailable) -> bool:
    return isinstance(error.__cause__, ChannelNotFoundEntity)
