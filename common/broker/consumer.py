"""Consuming: the consumer alone settles. A handler returns or raises; the message is acked, delayed or parked.

What a handler raises, and what becomes of the message:

    returns              acked
    Unavailable          kept and tried again here: nothing is wrong with the message, what we stand on is away
    Retryable, any bug   a copy goes to the next delay queue, is confirmed, then the message is acked
    nothing in its time  it is cancelled, which counts as a `HandlerHung`: that is Retryable
    Permanent            a copy goes to the stage's dead queue with the reason, is confirmed, then it is acked
    either, of the dead  after a pause a copy goes back to the dead queue, as it is
    nothing, as we stop  never settled: the broker gives it to somebody else when the connection closes

Copies, not requeues: a requeue is a hot loop, and counts differ between RabbitMQ's versions.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from typing import Any

from aio_pika.abc import AbstractChannel, AbstractRobustConnection

from common import tracing
from common.broker.connection import BROKER_ERRORS, bounded, close, keep_trying
from common.broker.deliveries import Taken, ack, connect_to_take
from common.broker.following import ids_of, in_hand
from common.broker.metrics import BrokerMetrics
from common.broker.outgoing import Outgoing
from common.broker.publisher import Publisher
from common.broker.retry import RetryPolicy, jittered
from common.broker.topology import DELAYED_STAGES, Stage, dead_key, dead_queue_name, delay_key, queue_name
from common.clock import monotonic_seconds, utc_now
from common.codec import convert, decode, loads
from common.errors import BadJson, BrokerUnavailable, Permanent, Retryable, Unavailable
from common.logs import bound, get_logger
from common.process import done_before, first_of
from schemas.messages import REGISTRY, Message

HOLD_SECONDS = 300.0
"""How long after its arrival a message is kept while something is away."""
ACK_SECONDS = 1800.0
"""The broker's limit: who has not acked by then loses its channel, and all that is in hand on it comes again."""
HANDLER_SECONDS = 120.0
"""For what a handler is called with. A message may have it twice, with its batch and then alone."""
END_SECONDS = 10.0
"""For a handler that is cancelled to roll back and end; after that it is left to itself."""
BATCH_BYTES = 1024 * 1024
"""Of the bodies of a batch, or one message: what is made of a body takes many times its place."""
REASON_LENGTH = 200
"""Characters of a header that anybody may have sent: there is a limit to how long all of them are together."""
CALL_SECONDS = 10.0

log = get_logger(__name__)
_left: set[asyncio.Future[Any]] = set()
"""Handlers that did not end when they were cancelled."""


class HandlerHung(Retryable):
    """A handler took longer than it may."""


@dataclass(frozen=True)
class Delivery:
    """One message as it came: `attempt` counts our own retries, from 0."""

    body: bytes
    headers: Mapping[str, Any]
    routing_key: str
    redelivered: bool = False
    span: tracing.Span | None = field(default=None, compare=False, repr=False)
    """What handling it is called in its trace; None when tracing is off."""

    @cached_property
    def ids(self) -> dict[str, Any]:
        """What log lines about it carry."""
        return ids_of(self)

    @property
    def attempt(self) -> int:
        """How often it was retried."""
        value = self.headers.get("attempt", 0)
        return value if isinstance(value, int) and 0 <= value < 2**31 else 0

    def message(self, unmarked: type[Message] | None = None) -> Message:
        """The message in it; one without our `schema` header, as strangers send them, is read as `unmarked`.

        Raises:
            Permanent: `unreadable_message`, of a kind or version that this program does not know.
        """
        name = self.headers.get("schema")
        kind = REGISTRY.get(str(name)) if name else unmarked
        if kind is None:
            raise Permanent("unreadable_message", "unknown schema")
        try:
            return decode(self.body, kind) if name else convert(loads(self.body), kind)  # strangers may send anything
        except BadJson as error:
            raise Permanent("unreadable_message", error.detail) from error


Handler = Callable[[Sequence[Delivery]], Awaitable[int | None]]
"""Handles a batch, or begins with it: the result is how many, from the first, it has handled. None: all of them."""


class Consumer:
    """Reads one queue, hands deliveries to the handler in batches, and settles them.

    Of a batch that fails, each message is handed on again by itself: one bad message parks itself and not its
    neighbours, and where several work, one that waits for a row waits alone. Where one works, what it is handed is in
    the order of arrival, as long as the store takes it. Redelivered messages run alone from the start.
    """

    def __init__(
        self,
        url: str,
        queue: str,
        stage: Stage,
        handler: Handler,
        publisher: Publisher,
        retry: RetryPolicy,
        *,
        batch: int = 1,
        concurrency: int = 1,
        seconds: float = HANDLER_SECONDS,
        metrics: BrokerMetrics | None = None,
    ) -> None:
        """`seconds`: how long a call of the handler may take."""
        self._url = url
        self._queue = queue
        self._stage: Stage = stage
        self._is_dead = queue == dead_queue_name(stage)
        self._handler = handler
        self._publisher = publisher
        self._retry = retry
        self._batch = batch
        self._concurrency = concurrency
        self._seconds = seconds
        self._inbox: deque[Taken] = deque()
        self._something = asyncio.Event()
        self._waiting: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._metrics = metrics or BrokerMetrics()
        self._channel: AbstractChannel | None = None
        """Set while its queue is subscribed to."""

    @property
    def queue(self) -> str:
        """Which queue it reads."""
        return self._queue

    @property
    def is_consuming(self) -> bool:
        """Whether the broker gives it messages now."""
        channel = self._channel
        return channel is not None and not self._stopping.is_set() and not channel.is_closed

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`; then take nothing new, finish what is in hand, and close."""
        connection: AbstractRobustConnection | None = None
        workers: list[asyncio.Task[None]] = []
        try:
            connection = await done_before(stop, connect_to_take(self._url, f"consume {self._queue}", self._take))
            if connection is None:
                return
            cancel = await done_before(stop, self._subscribe(connection))
            if cancel is None:
                return
            workers = [asyncio.create_task(self._work()) for _ in range(self._concurrency)]
            await first_of(stop.wait(), *workers)
            await cancel()
            self._stopping.set()
            await asyncio.gather(*workers)
            await asyncio.gather(*self._waiting)
        finally:
            self._channel = None
            for task in (*workers, *self._waiting):
                task.cancel()
            await asyncio.gather(*workers, *self._waiting, return_exceptions=True)
            await close(connection)

    async def _subscribe(self, connection: AbstractRobustConnection) -> Callable[[], Awaitable[None]]:
        channel = await keep_trying(lambda: bounded(_open(connection), CALL_SECONDS), f"channel for {self._queue}")
        prefetch = self._batch * self._concurrency * 2
        await keep_trying(lambda: bounded(channel.set_qos(prefetch_count=prefetch), CALL_SECONDS), "prefetch")
        # get_queue declares passively: only `gateway setup` creates.
        queue = await keep_trying(lambda: bounded(channel.get_queue(self._queue), CALL_SECONDS), self._queue)
        tag = await keep_trying(lambda: bounded(queue.consume(_not_called), CALL_SECONDS), f"consume {self._queue}")
        self._channel = channel
        log.info("consumer.started", queue=self._queue)

        async def cancel() -> None:
            try:
                await bounded(queue.cancel(tag), 3)
            except BrokerUnavailable as error:
                log.debug("consumer.cancel_failed", queue=self._queue, reason=str(error))

        return cancel

    async def _work(self) -> None:
        while batch := await self._next_batch():
            await self._process(batch)

    async def _next_batch(self) -> list[Taken]:
        """Whatever is there, at most a batch; waits for the first; empty at the end."""
        while not self._inbox:
            if self._stopping.is_set():
                return []
            self._something.clear()
            await first_of(self._stopping.wait(), self._something.wait())
        batch = [self._inbox.popleft()]
        size = len(batch[0].body)
        while len(batch) < self._batch and self._inbox and not batch[-1].is_apart:
            size += len(self._inbox[0].body)
            if self._inbox[0].is_apart or size > BATCH_BYTES:
                break
            batch.append(self._inbox.popleft())
        return batch

    def _take(self, message: Taken) -> None:
        self._inbox.append(message)
        self._something.set()

    def _take_apart(self, batch: Sequence[Taken]) -> None:
        """Each by itself and before all others, by whoever is free: they came first."""
        for message in batch:
            message.is_apart = True
        self._inbox.extendleft(reversed(batch))
        self._something.set()

    async def _process(self, batch: list[Taken]) -> None:
        self._observe_wait(batch)
        begun = monotonic_seconds()
        while batch := await self._in_time(batch):
            try:
                await self._handle(batch)
            except Unavailable as error:
                if self._stopping.is_set():
                    self._inbox.clear()  # never settled: whoever comes next shall have them
                    return
                # Where one works alone the order is that of arrival: what came later has to wait, too.
                if len(batch) > 1 and self._concurrency > 1:
                    self._take_apart(batch)
                    return
                if not await self._hold(batch, error, monotonic_seconds() - begun):
                    return
            except Exception as error:  # noqa: BLE001  # the one place where a message's fate is decided
                if len(batch) > 1:
                    self._take_apart(batch)
                    return
                with bound(**_delivery(batch[0]).ids):
                    await self._move_failed(batch[0], error)
                return

    async def _handle(self, batch: list[Taken]) -> None:
        """What the handler has done is acked, and no longer in the batch, at once: what fails is the rest."""
        with (
            self._metrics.handler_seconds.labels(self._queue).time(),
            in_hand(self._queue, [_delivery(message) for message in batch]) as hand,
        ):
            while batch:
                done = await self._call(list(hand.deliveries))
                count = len(batch) if done is None else done
                if count < 1:
                    raise RuntimeError("the handler has handled none of them")
                await _ack(batch[:count])
                self._count("acked", count)
                hand.done(count)
                del batch[:count]

    async def _call(self, deliveries: Sequence[Delivery]) -> int | None:
        """What the handler returns or raises; a cancellation that nobody asked of this task is an error of it.

        Raises:
            HandlerHung: it took too long.
        """
        handling = asyncio.ensure_future(self._handler(deliveries))
        try:
            await asyncio.wait([handling], timeout=self._seconds)
            is_late = not handling.done()
        finally:
            await _end(handling)
        if is_late:
            self._metrics.hung.labels(self._queue).inc()
            log.error("handler.hung", queue=self._queue, messages=len(deliveries), exc_info=_where(handling))
        if handling.done() and not handling.cancelled():
            return handling.result()
        if is_late:
            raise HandlerHung(f"no end after {self._seconds:g} s")
        raise RuntimeError("the handler was cancelled from within")

    async def _hold(self, batch: Sequence[Taken], error: Unavailable, held: float) -> bool:
        """Wait a little before the next try; False when there is none."""
        log.warning("handler.waiting", queue=self._queue, reason=str(error), messages=len(batch), held=round(held, 1))
        if monotonic_seconds() - batch[0].came > HOLD_SECONDS:
            for message in batch:
                if not _is_lost(message):
                    await self._send_again(message)
            return False
        await first_of(asyncio.sleep(min(5.0, 0.2 + held / 4)), self._stopping.wait())
        return not self._stopping.is_set()

    async def _in_time(self, batch: Sequence[Taken]) -> list[Taken]:
        """Those that will be settled before the broker's limit, even if the handler takes all of its time.

        Of a batch taken apart, in which each message hangs, the last would be over it.
        """
        first = monotonic_seconds() - (ACK_SECONDS - self._seconds - END_SECONDS)
        for message in batch:
            if message.came < first and not _is_lost(message):
                await self._send_again(message)
        return [message for message in batch if message.came >= first and not _is_lost(message)]

    async def _send_again(self, message: Taken) -> None:
        """To the end of its queue: it has been in hand for too long."""
        delivery = _delivery(message)
        await self._move(message, _copy(delivery, delivery.routing_key, self._reason(delivery)))

    async def _move_failed(self, message: Taken, error: Exception) -> None:
        if not isinstance(error, Permanent | Retryable):
            log.error("handler.failed", queue=self._queue, exc_info=error)
        copy = self._fate(_delivery(message), error)
        if self._is_dead or copy.routing_key.endswith(".retry"):
            later = asyncio.create_task(self._move_later(message, copy))
            self._waiting.add(later)
            later.add_done_callback(self._waiting.discard)
        else:
            await self._move(message, copy)

    def _fate(self, delivery: Delivery, error: Exception) -> Outgoing:
        if self._is_dead:  # it stays so, whatever is in the way of its parking
            return _copy(delivery, dead_key(self._stage), self._reason(delivery))
        if isinstance(error, Permanent):
            return _copy(delivery, dead_key(self._stage), {"reason": error.reason, "detail": error.detail[:200]})
        delay = self._retry.delay(delivery.attempt)
        if delay is None:
            reason = {"reason": "retries_exhausted", "detail": type(error).__name__}
            return _copy(delivery, dead_key(self._stage), reason)
        attempt = {"attempt": delivery.attempt + 1}
        if self._stage in DELAYED_STAGES:
            return _copy(delivery, delay_key(self._stage, delay), attempt)
        return _copy(delivery, f"{self._stage}.retry", attempt)

    def _reason(self, delivery: Delivery) -> Mapping[str, str]:
        """Of what is dead: the broker's own would not be copied."""
        return {"reason": reason_of(delivery.headers)} if self._is_dead else {}

    async def _move_later(self, message: Taken, copy: Outgoing) -> None:
        """For what has no delay queue: the wait is here, beside the work, so that it holds nobody up."""
        await first_of(asyncio.sleep(jittered(self._retry.delays[0]).total_seconds()), self._stopping.wait())
        await self._move(message, copy)

    async def _move(self, message: Taken, copy: Outgoing) -> None:
        """Publish the copy, then ack; if it is not confirmed, give the message back after a pause."""
        try:
            await self._publisher.publish(copy)
        except Exception as error:  # whatever it is, the message is settled: else nobody has it again
            if isinstance(error, BrokerUnavailable):
                log.warning("consumer.copy_failed", queue=self._queue, reason=str(error))
            else:
                log.error("consumer.bug", queue=self._queue, exc_info=error)
            self._count("given_back")
            await first_of(asyncio.sleep(1.0), self._stopping.wait())
            await _settle(message.reject(requeue=True))
        else:
            log.info("consumer.moved", queue=self._queue, to=copy.routing_key, reason=copy.headers.get("reason"))
            self._count("dead" if copy.routing_key == dead_key(self._stage) else "delayed")
            await _settle(ack([message]))

    def _count(self, became: str, messages: int = 1) -> None:
        self._metrics.messages.labels(self._queue, became).inc(messages)

    def _observe_wait(self, batch: Sequence[Taken]) -> None:
        """For people to look at; nothing is decided by what two hosts' clocks say."""
        now, seconds = int(utc_now().timestamp()), self._metrics.wait_seconds.labels(self._queue)
        for message in batch:
            if message.timestamp is not None and not message.is_apart and not message.headers.get("attempt"):
                seconds.observe(max(0, now - int(message.timestamp.timestamp())))


async def _not_called(_: object) -> None:
    """What is delivered is taken before the library sees it."""


async def _open(connection: AbstractRobustConnection) -> Any:
    return await connection.channel(publisher_confirms=False)


def _delivery(message: Taken) -> Delivery:
    return Delivery(message.body, message.headers, message.routing_key, message.redelivered)


def _copy(delivery: Delivery, routing_key: str, headers: Mapping[str, Any]) -> Outgoing:
    # The broker drops a message that comes back to a queue by dead-lettering alone: its trace must not be copied.
    kept = {key: value for key, value in delivery.headers.items() if not key.startswith("x-") and _is_ours(value)}
    return Outgoing(routing_key, delivery.body, headers={**kept, **headers})


def reason_of(headers: Mapping[str, Any]) -> str:
    """Why a message is dead: our own reason, else the broker's (`delivery_limit`: every process that took it died)."""
    if reason := headers.get("reason"):
        return str(reason)[:REASON_LENGTH]
    deaths = headers.get("x-death")
    if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
        return str(deaths[0].get("reason", "unknown"))[:REASON_LENGTH]
    return "unknown"


def _is_ours(value: object) -> bool:
    """Text or a whole number, as we send them: of what strangers send some can be read and not be written."""
    return isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**63)


async def _end(handling: asyncio.Future[Any]) -> None:
    """Whatever has not ended is cancelled, and has the time to roll back."""
    if handling.done():
        return
    handling.cancel()
    await asyncio.wait([handling], timeout=END_SECONDS)
    if not handling.done():
        _left.add(handling)
        handling.add_done_callback(_left.discard)


def _where(handling: asyncio.Future[Any]) -> BaseException | None:
    """What it ended with; None: it has not ended, or well."""
    try:
        return handling.exception()
    except asyncio.CancelledError as error:  # raised where it was waiting
        return error
    except asyncio.InvalidStateError:
        return None


async def _ack(batch: Sequence[Taken]) -> None:
    """Channel by channel: one that is lost meanwhile takes no other's acks along."""
    for _, messages in groupby(batch, key=attrgetter("channel")):
        await _settle(ack(list(messages)))


def _is_lost(message: Taken) -> bool:
    """Whether its channel is closed, so that the broker has given it to somebody else."""
    return message.channel.is_closed


async def _settle(settling: Awaitable[None]) -> None:
    """Settle; on a connection that died meanwhile the broker has already given the message to somebody else."""
    try:
        await bounded(settling, CALL_SECONDS)
    except (BrokerUnavailable, *BROKER_ERRORS) as error:
        log.debug("consumer.settle_failed", reason=str(error))


def stage_consumer(
    url: str,
    stage: Stage,
    handler: Handler,
    publisher: Publisher,
    retry: RetryPolicy,
    *,
    batch: int = 1,
    concurrency: int = 1,
    seconds: float = HANDLER_SECONDS,
    metrics: BrokerMetrics | None = None,
) -> Consumer:
    """The consumer of a stage's work queue."""
    return Consumer(
        url,
        queue_name(stage),
        stage,
        handler,
        publisher,
        retry,
        batch=batch,
        concurrency=concurrency,
        seconds=seconds,
        metrics=metrics,
    )
