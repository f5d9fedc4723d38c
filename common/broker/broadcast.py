"""Publishing an event to everybody, so that no subscriber holds up the others.

A confirm comes when every queue has the message. A full queue nacks for all (28 of 30, measured). A quorum queue
without a leader never confirms, and when some 400 messages wait for it RabbitMQ reads nothing more from the connection
(measured on 3.10), which would stop the events of all. So an event that was routed and not confirmed goes to the event
log alone, and a connection with many such events is exchanged for a new one.

One thing holds everybody up: a quorum queue whose process is there but has no majority. RabbitMQ keeps the first
message of every channel to it for 65 s (measured on 3.10), so no new connection gets anywhere. Nothing is lost; the
process's log says what to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum

from aio_pika.abc import AbstractConnection
from msgspec.structs import replace

from common.broker.channel import PublishChannel
from common.broker.connection import close, connect_plainly
from common.broker.metrics import BrokerMetrics
from common.broker.outgoing import Outgoing, PublishRefused, Unroutable, sending_seconds
from common.broker.publisher import Publisher
from common.broker.topology import EVENT_LOG, LOG
from common.clock import monotonic_seconds
from common.errors import BrokerUnavailable
from common.logs import get_logger
from common.process import pause

CONFIRM_SECONDS = 2.0
IMPATIENT_SECONDS = 0.1
"""How long a confirm is waited for after a subscriber kept us waiting; every other one has its copy by then."""
FIND_OUT_EVERY_SECONDS = 30.0
ANSWER_SECONDS = 2.0
GIVEN_UP_SECONDS = 60.0
LINE_LIMIT = 256
"""Messages without a confirm on one connection; well below what makes RabbitMQ stop reading from it."""
SILENT_LINES_TOLD = {3, *range(30, 30_000, 30)}
"""After so many connections in a row without any answer a person is told."""
LINES_KEPT = 4
LINE_KEPT_SECONDS = 30.0
"""How long a full line stays open for a queue that is electing a leader, and how many such lines there are at most."""


log = get_logger(__name__)


class Heard(Enum):
    """Who has an event."""

    BY_ALL = "all"
    BY_THE_LOG_ALONE = "log"
    """And by whom it was routed to, save the subscriber that refused it or did not confirm."""


class NotInLog(BrokerUnavailable):
    """Everybody was given the event, and some have it; the log has not: give it to the log alone."""


class Broadcast:
    """Publishes on the events' exchange; at most half of `LINE_LIMIT` publishes may be under way at once."""

    def __init__(self, url: str, name: str, metrics: BrokerMetrics | None = None) -> None:
        self._url = url
        self._name = name
        self._log = Publisher(url, f"{name} to the log", metrics)
        self._line: _Line | None = None
        self._opening = asyncio.Lock()
        self._not_opened: BrokerUnavailable | None = None
        self._not_opened_at = 0.0
        self._retired: dict[_Line, asyncio.Task[None]] = {}
        """The oldest first, each with its closing."""
        self._in_trouble = False
        self._find_out_at = 0.0
        self._silent_lines = 0

    def start(self) -> None:
        """Begin to connect; a broker that is away is waited for in the background."""
        self._log.start()

    async def close(self) -> None:
        """Close the connections; publishing fails from now on."""
        if self._line is not None:
            self._retire(self._line)
        for line in self._retired:
            line.over.set()
        await asyncio.gather(*self._retired.values())
        await self._log.close()

    async def publish(self, message: Outgoing) -> Heard:
        """Publish; returns when every queue has it, or the log has and every queue that can take it was given it.

        Raises:
            NotInLog: see `publish_to_log`.
            BrokerUnavailable: nobody knows who has it; publish it again.
        """
        line, patience = await self._usable_line(), self._patience()
        try:
            async with line.publishing(message) as confirm:
                if await self._is_confirmed(line, confirm, message, patience):
                    return Heard.BY_ALL
                await self._make_sure_of_routing(line)
            self._in_trouble = self._in_trouble or patience == CONFIRM_SECONDS
        except Unroutable:
            raise  # nobody was given it: not even the log is bound
        except PublishRefused:
            pass
        try:
            return await self.publish_to_log(message)
        except BrokerUnavailable as error:
            raise NotInLog(str(error)) from error

    async def check(self, queues: Sequence[str] = (), *, seconds: float = 2.0) -> None:
        """Ask the broker whether it answers and the log and these queues are there; as `Publisher.check`."""
        await self._log.check([EVENT_LOG, *queues], seconds=seconds)

    async def publish_to_log(self, message: Outgoing) -> Heard:
        """Publish past all subscribers: for what they were given before.

        Raises:
            BrokerUnavailable: nobody knows whether the log has it.
        """
        await self._log.publish(replace(message, exchange=LOG))
        return Heard.BY_THE_LOG_ALONE

    def _patience(self) -> float:
        """While a subscriber keeps us waiting, one event now and then finds out whether it still does."""
        now = monotonic_seconds()
        if self._in_trouble and now < self._find_out_at:
            return IMPATIENT_SECONDS
        self._find_out_at = now + FIND_OUT_EVERY_SECONDS
        return CONFIRM_SECONDS

    async def _is_confirmed(self, line: _Line, confirm: asyncio.Task[None], message: Outgoing, patience: float) -> bool:
        try:
            confirmed = await line.confirms(confirm, message, patience)
        except PublishRefused:
            raise
        except BrokerUnavailable:
            line.over.set()
            self._retire(line)
            raise
        if confirmed:
            self._in_trouble, self._silent_lines = False, 0
        return confirmed

    async def _make_sure_of_routing(self, line: _Line) -> None:
        """Returns when the broker has routed all that was sent on the line before."""
        try:
            await line.answer()
        except BrokerUnavailable:
            line.over.set()
            if self._retire(line):
                self._tell_of_silence()
            raise
        line.unanswered += 1
        self._silent_lines = 0

    def _tell_of_silence(self) -> None:
        """Of several lines none got through, while the log's stands: it is not the broker that is away."""
        self._silent_lines += 1
        if self._log.ready and self._silent_lines in SILENT_LINES_TOLD:
            log.error(
                "relay.held_up",
                why="the broker has an alarm, or a quorum queue bound to syncaroo.events has no majority",
                what_to_do="rabbitmqctl status shows alarms; rabbitmqctl list_queues name type members online shows "
                "the queue: recover, unbind or delete it",
            )

    async def _usable_line(self) -> _Line:
        wanted = monotonic_seconds()
        async with self._opening:
            if self._line is not None and self._line.waiting >= LINE_LIMIT:
                self._retire(self._line)
            if self._line is None:
                self._line = await self._new_line(wanted)
            return self._line

    async def _new_line(self, wanted: float) -> _Line:
        """One attempt serves all that waited for it, also when it fails."""
        if self._not_opened is not None and self._not_opened_at > wanted:
            raise BrokerUnavailable(str(self._not_opened))
        try:
            return await _open(self._url, self._name)
        except BrokerUnavailable as error:
            self._not_opened, self._not_opened_at = error, monotonic_seconds()
            raise

    def _retire(self, line: _Line) -> bool:
        """No new messages on it; False: it has been retired before.

        It stays open for a while: a queue that is without a leader for seconds gets what waits for it on the line.
        """
        if self._line is not line:
            return False
        self._line = None
        closing = self._retired[line] = asyncio.create_task(line.close())
        closing.add_done_callback(lambda _: self._retired.pop(line))
        for oldest in list(self._retired)[:-LINES_KEPT]:
            oldest.over.set()
        return True


@dataclass(eq=False)
class _Line:
    """One connection, which is thrown away when in doubt."""

    connection: AbstractConnection
    channel: PublishChannel
    unanswered: int = 0
    """Messages whose confirm is not waited for any more."""
    under_way: int = 0
    bytes_under_way: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when nothing that waits on it will get through."""
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _asked: float = 0.0
    _silent: bool = False
    """It did not answer once; who waited behind that call need not ask again."""

    @property
    def waiting(self) -> int:
        """Messages that the broker may have to keep for somebody."""
        return self.unanswered + self.under_way

    @asynccontextmanager
    async def publishing(self, message: Outgoing) -> AsyncIterator[asyncio.Task[None]]:
        """A message on its way; its confirm is waited for until the end of the block, and given up then."""
        self.under_way += 1
        self.bytes_under_way += len(message.body)
        self.idle.clear()
        given_up = GIVEN_UP_SECONDS + sending_seconds(len(message.body))
        confirm = asyncio.create_task(self.channel.publish(message, given_up))
        try:
            yield confirm
        finally:
            confirm.cancel()
            await asyncio.gather(confirm, return_exceptions=True)
            self.under_way -= 1
            self.bytes_under_way -= len(message.body)
            if not self.under_way:
                self.idle.set()

    async def confirms(self, confirm: asyncio.Task[None], message: Outgoing, seconds: float) -> bool:
        """Whether it is confirmed in time; False: it has left, and is not.

        Time counts from when it has left: while this process is busy it may wait for its turn, and then the broker's
        answer to a later call says nothing about it. A large one, and who waits behind it, has the time it needs.

        Raises:
            PublishRefused: the broker nacked it.
            BrokerUnavailable: the connection is lost, or it could not leave for long.
        """
        more = sending_seconds(self.bytes_under_way)
        deadline = monotonic_seconds() + CONFIRM_SECONDS + more
        while True:
            await asyncio.wait([confirm], timeout=seconds + more)
            if confirm.done():
                confirm.result()
                return True
            if self.channel.has_left(message.message_id or ""):
                return False
            if monotonic_seconds() > deadline:
                raise BrokerUnavailable("broker: the connection takes nothing")

    async def answer(self) -> None:
        """Returns when the broker has answered a call that was made after this one; one call serves many.

        Raises:
            BrokerUnavailable: it does not answer.
        """
        wanted = monotonic_seconds()
        async with self._asking:
            if self._asked > wanted:
                return
            if self._silent:
                raise BrokerUnavailable("broker: the connection does not answer")
            asked, seconds = monotonic_seconds(), ANSWER_SECONDS + sending_seconds(self.bytes_under_way)
            try:
                await self.channel.answer(seconds)
            except BrokerUnavailable:
                self._silent = True
                raise
            self._asked = asked

    async def close(self) -> None:
        """When nothing is under way and it is over, or has been kept for long enough."""
        if self.under_way:
            await self.idle.wait()
        await pause(self.over, LINE_KEPT_SECONDS)
        await close(self.connection)


async def _open(url: str, name: str) -> _Line:
    connection = await connect_plainly(url, name)
    try:
        return _Line(connection, await PublishChannel.open(connection))
    except BaseException:
        await close(connection)
        raise
