"""Deliveries as they come from the socket, and acks of many at once: what the library takes most of its time for.

Its way of a delivery is nine reads of the stream, three frames through queues and two tasks (a hop costs six times
the processor time). Here frames are told apart where the bytes arrive. Those that carry deliveries are put
together and handed on at once; all others go the library's way: it opens channels, recovers and closes them, and sees
no deliveries.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from itertools import takewhile
from typing import Any
from weakref import WeakKeyDictionary

from aio_pika.abc import AbstractRobustConnection
from aio_pika.robust_connection import RobustConnection
from aiormq.abc import AbstractChannel, ChannelFrame
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError, ChannelInvalidStateError, InvalidFrameError
from pamqp import decode
from yarl import URL

from common.broker.connection import connect
from common.clock import monotonic_seconds

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
KINDS = (METHOD, HEADER, BODY, HEARTBEAT)
DELIVER = b"\x00\x3c\x00\x3c"
ACK = (13, 60, 80)
"""The length of its frame, class and method."""
END = 0xCE
ALIVE = b"\x08\x00\x00\x00\x00\x00\x00\xce"
"""A heartbeat. The broker sends none while it sends deliveries, and the library sees none of these."""
ALIVE_SECONDS = 1.0
MOST_KNOWN_BYTES = 256
_CLOSING = "_Channel__close_event"
"""Set by the library before `is_closed`. What is written on such a channel would cost the connection."""

_frame = struct.Struct(">BHI")
_content = struct.Struct(">QH")
_tag = struct.Struct(">QB")
_ack = struct.Struct(">BHIHHQBB")


class Unsettled(dict[int, None]):
    """The tags of all that are in hand on a channel, ascending."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = asyncio.Lock()
        """Who writes acks now."""


@dataclass(eq=False, slots=True)
class Taken:
    """A message that the broker has given to us, until it is settled."""

    channel: AbstractChannel
    unsettled: Unsettled
    delivery_tag: int
    redelivered: bool
    routing_key: str
    headers: Mapping[str, Any] = field(default_factory=dict)
    timestamp: datetime | None = None
    body: bytes = b""
    came: float = field(default_factory=monotonic_seconds)
    is_apart: bool = False
    """To be handled by itself, as what is delivered once more is from the start."""

    def __post_init__(self) -> None:
        self.is_apart = self.is_apart or self.redelivered

    async def reject(self, *, requeue: bool) -> None:
        """Give it back, or have the broker drop it."""
        await self.channel.basic_reject(self.delivery_tag, requeue=requeue)
        self.unsettled.pop(self.delivery_tag, None)  # not before: an ack of what came later would take it along


Take = Callable[[Taken], None]


async def connect_to_take(url: str, name: str, take: Take) -> AbstractRobustConnection:
    """As `connection.connect`; whatever is delivered on it is given to `take`, and no consumer's callback is called."""
    return await connect(url, name, partial(_Connection, take))


async def ack(messages: Sequence[Taken]) -> None:
    """Ack messages of one channel in one write, and in one command for the broker as far as nothing older is in hand.

    Raises:
        ChannelInvalidStateError: the channel is closed: the broker gives them to somebody else.
    """
    channel, unsettled = messages[0].channel, messages[0].unsettled
    async with unsettled.turn:  # a tag that left with later ones must not leave once more, behind them
        if channel.is_closed or getattr(channel, _CLOSING).is_set():
            raise ChannelInvalidStateError("closed")
        written = channel.create_future()  # fails with the channel
        frames = ChannelFrame(_acks(channel.number, messages), should_close=False, drain_future=written)
        await channel.connection.write_queue.put(frames)
    await written


def _acks(number: int, messages: Sequence[Taken]) -> bytes:
    tags, unsettled = {one.delivery_tag for one in messages}, messages[0].unsettled
    oldest = list(takewhile(tags.__contains__, unsettled))
    for tag in tags:
        unsettled.pop(tag, None)
    single = sorted(tags.difference(oldest))
    acks = [_ack.pack(METHOD, number, *ACK, tag, 0, END) for tag in single]
    if oldest:
        acks.append(_ack.pack(METHOD, number, *ACK, oldest[-1], 1, END))
    return b"".join(acks)


class DeliveryStream(asyncio.StreamReader):
    """What comes from the broker, without deliveries: these are given to `take`."""

    def __init__(self, take: Take, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._take = take
        self._time = loop.time
        self._alive = 0.0
        self._rest = b""
        self._is_ours = True
        self._coming: dict[int, _Coming] = {}
        """What is not complete, by channel."""
        self._unsettled: WeakKeyDictionary[AbstractChannel, Unsettled] = WeakKeyDictionary()
        self.channels: Mapping[int, AbstractChannel | None] = {}
        """Of the connection that reads this stream."""

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # a transport hands over nothing else
        """Bytes, cut anywhere. What is no frame goes the library's way with all that follows: it knows what to say."""
        if not self._is_ours:
            super().feed_data(data)
            return
        try:
            others = self._sort(self._rest + data if self._rest else data)
        except (ValueError, IndexError, struct.error) as error:
            self._is_ours = False
            self.set_exception(InvalidFrameError(str(error)))
            return
        now = self._time()
        if others:
            self._alive = now
            super().feed_data(others)
        elif self.channels and now - self._alive > ALIVE_SECONDS:  # not before there is a connection
            self._alive = now
            super().feed_data(ALIVE)

    def feed_eof(self) -> None:
        """The end, perhaps within a frame; told once by who ends it and once more by the transport."""
        if self._is_ours:
            self._is_ours = False
            super().feed_data(self._rest)
        super().feed_eof()

    def _sort(self, data: bytes) -> bytes:
        """Take the deliveries → whole frames that are none."""
        at, size, others = 0, len(data), []
        while size - at >= _frame.size:
            kind, number, length = _frame.unpack_from(data, at)
            begin, end = at + _frame.size, at + _frame.size + length
            if kind not in KINDS or (end < size and data[end] != END):
                self._is_ours = False
                others.append(data[at:])
                return b"".join(others)
            if end >= size:
                break
            if not self._is_taken(kind, number, data, begin, end):
                others.append(data[at : end + 1])
            at = end + 1
        self._rest = data[at:]
        return b"".join(others)

    def _is_taken(self, kind: int, number: int, data: bytes, begin: int, end: int) -> bool:
        """Whether a frame is part of a delivery; its payload is between `begin` and `end`."""
        if kind == METHOD:
            if data[begin : begin + 4] != DELIVER:
                return False
            self._coming[number] = _Coming(*_delivered(data, begin + 4))
            return True
        coming = self._coming.get(number)
        if coming is None or kind == HEARTBEAT:
            return False
        if kind == HEADER:
            coming.missing, flags = _content.unpack_from(data, begin + 4)
            coming.headers, coming.timestamp = _properties(data, begin + 14, flags)
        else:
            coming.parts.append(data[begin:end])
            coming.missing -= end - begin
        if coming.missing <= 0:
            del self._coming[number]
            self._give(number, coming)
        return True

    def _give(self, number: int, coming: _Coming) -> None:
        channel = self.channels.get(number)
        if channel is None:
            return  # closed: the broker gives it to somebody else
        unsettled = self._unsettled.get(channel) or self._unsettled.setdefault(channel, Unsettled())
        unsettled[coming.tag] = None
        body = coming.parts[0] if len(coming.parts) == 1 else b"".join(coming.parts)
        redelivered, key = coming.redelivered, coming.routing_key
        self._take(Taken(channel, unsettled, coming.tag, redelivered, key, coming.headers, coming.timestamp, body))


@dataclass(eq=False, slots=True)
class _Coming:
    """A delivery of which frames are missing."""

    tag: int
    redelivered: bool
    routing_key: str
    headers: Mapping[str, Any] = field(default_factory=dict)
    timestamp: datetime | None = None
    missing: int = 0
    parts: list[bytes] = field(default_factory=list)


def _delivered(data: bytes, at: int) -> tuple[int, bool, str]:
    at += 1 + data[at]  # the consumer's tag
    tag, redelivered = _tag.unpack_from(data, at)
    at += _tag.size
    at += 1 + data[at]  # the exchange
    return tag, bool(redelivered & 1), data[at + 1 : at + 1 + data[at]].decode()


def _properties(data: bytes, at: int, flags: int) -> tuple[Mapping[str, Any], datetime | None]:
    """Those that are of use: headers and timestamp. They stand in the order of their flags."""
    headers: Mapping[str, Any] = {}
    for flag in (1 << 15, 1 << 14):  # content type and encoding
        if flags & flag:
            at += 1 + data[at]
    if flags & 1 << 13:
        size = 4 + int.from_bytes(data[at : at + 4], "big")
        headers = _table(data[at : at + size])
        at += size
    at += (flags >> 12 & 1) + (flags >> 11 & 1)  # delivery mode, priority
    if not flags & 1 << 6:
        return headers, None
    for flag in (1 << 10, 1 << 9, 1 << 8, 1 << 7):  # correlation id, reply to, expiration, message id
        if flags & flag:
            at += 1 + data[at]
    return headers, _moment(data[at : at + 8])


@lru_cache(maxsize=256)
def _moment(data: bytes) -> datetime | None:
    """It has whole seconds, and thousands of messages have the same."""
    moment = decode.METHODS["timestamp"](data)[1]
    return moment if isinstance(moment, datetime) else None


def _table(data: bytes) -> Mapping[str, Any]:
    return _known_table(data) if len(data) <= MOST_KNOWN_BYTES else _read_table(data)


@lru_cache(maxsize=1024)
def _known_table(data: bytes) -> Mapping[str, Any]:
    """Most messages of a queue have the same headers as others."""
    return _read_table(data)


def _read_table(data: bytes) -> Mapping[str, Any]:
    try:
        return decode.field_table(data)[1]
    except RecursionError:  # whoever nests so deep says nothing that we know; else the message would come for ever
        return {}


class _Connection(RobustConnection):
    """With a stream of that kind, each time it connects."""

    def __init__(self, take: Take, url: URL, *args: Any, **kwargs: Any) -> None:
        super().__init__(url, *args, **kwargs)
        self._transports = _Transports(take)
        self.kwargs["transport_factory"] = self._transports

    async def _on_connected(self) -> None:
        stream = self._transports.stream
        if self.transport is not None and stream is not None:
            stream.channels = self.transport.connection.channels
        await super()._on_connected()


class _Transports(TransportFactory):
    def __init__(self, take: Take) -> None:
        self._take = take
        self.stream: DeliveryStream | None = None
        """Of the newest."""

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As the library's own: TCP, with TLS for `amqps`."""
        provider = kwargs.pop("ssl_context_provider")
        tls = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        stream = self.stream = DeliveryStream(self._take, loop)
        protocol = asyncio.StreamReaderProtocol(stream, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, url.host or "", url.port or 0, ssl=tls, **kwargs
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        return stream, asyncio.StreamWriter(transport, protocol, stream, loop)
