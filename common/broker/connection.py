"""Connections to RabbitMQ: one for publishing, one for consuming, each with a heartbeat of 10 s.

Apart, because a memory or disk alarm stops everything that a publishing connection writes, acks included.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from aio_pika.abc import AbstractConnection, AbstractRobustConnection
from aio_pika.connection import Connection
from aio_pika.exceptions import AMQPError
from aio_pika.robust_connection import RobustConnection
from pamqp import decode
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential
from yarl import URL

from common.errors import BrokerUnavailable
from common.logs import get_logger

HEARTBEAT_SECONDS = 10
CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 3.0
MOST_UNCLOSED = 16

log = get_logger(__name__)
T = TypeVar("T")
_unclosed: set[asyncio.Task[None]] = set()
"""Connections whose closing takes longer."""

BROKER_ERRORS = (AMQPError, OSError, RuntimeError, StopAsyncIteration, TimeoutError)
"""What the AMQP libraries raise when the broker is away: `RuntimeError` is theirs for a closed connection,
`StopAsyncIteration` for one that ends before it has begun (seen behind a proxy without a server)."""
_UNAWAITED = re.compile(r"never retrieved.* defined at [^>]*/aiormq/", re.DOTALL)


class NotOurs(logging.Filter):
    """Drops how a task of the AMQP library ended that nobody waits for: its reader gives up a lost channel after a
    while, and whoever uses the channel is told in another way."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not (isinstance(error, BROKER_ERRORS) and _UNAWAITED.search(record.getMessage()))


logging.getLogger("asyncio").addFilter(NotOurs())

_MOMENT_BYTES = 8
_librarys_moment = decode.timestamp


def _any_moment(value: bytes) -> tuple[int, datetime]:
    """A message's `timestamp`; what is beyond the calendar counts as 1970, as any client may send it.

    The library ends the connection over it, and the broker sends the message again on the next one, without end.
    """
    try:
        return _librarys_moment(value)
    except (ValueError, OverflowError, OSError):
        if len(value) < _MOMENT_BYTES:
            raise
        return _MOMENT_BYTES, datetime.fromtimestamp(0, UTC)


decode.METHODS["timestamp"] = _any_moment
decode.TABLE_MAPPING[b"T"] = _any_moment


async def bounded(work: Awaitable[T], seconds: float) -> T:
    """Await an AMQP call for at most `seconds`; every way in which it can fail becomes one error.

    aiormq cancels its callers when a connection dies: a cancellation that nobody asked of this task is the broker's.

    Raises:
        BrokerUnavailable: it failed or took too long; the outcome is unknown.
    """
    try:
        async with asyncio.timeout(seconds):
            return await work
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise BrokerUnavailable("broker: the connection was lost") from None
    except BROKER_ERRORS as error:
        raise BrokerUnavailable(f"broker: {type(error).__name__}") from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise BrokerUnavailable("broker: the connection was closed") from error  # the library throws it without a kind


async def connect(url: str, name: str, kind: Any = RobustConnection) -> AbstractRobustConnection:
    """Connect, waiting with backoff for a broker that is not there yet; reconnects by itself from then on.

    `kind` makes the connection, as the library's own class does.
    """
    return await keep_trying(lambda: connect_once(url, name, kind), f"connect {name}")


async def connect_once(url: str, name: str, kind: Any = RobustConnection) -> AbstractRobustConnection:
    """Connect or fail within 10 s.

    Raises:
        BrokerUnavailable: no broker there, or it refuses us.
    """
    connection: AbstractRobustConnection = kind(_address(url, name))
    await _establish(connection)
    return connection


async def connect_plainly(url: str, name: str) -> AbstractConnection:
    """A connection that does not come back when it is lost.

    Raises:
        BrokerUnavailable: no broker there, it refuses us, or it does not even let go of earlier connections.
    """
    if len(_unclosed) >= MOST_UNCLOSED:
        raise BrokerUnavailable(f"broker: it reads nothing; {len(_unclosed)} connections are still being closed")
    connection = Connection(_address(url, name))
    await _establish(connection)
    return connection


async def _establish(connection: AbstractConnection) -> None:
    """Connect it, or close it. One that is only dropped is closed by the garbage collector, in whatever thread it runs:
    in another than the loop's this fails, and Python says that a coroutine was never awaited."""
    try:
        await bounded(connection.connect(timeout=CONNECT_SECONDS), CONNECT_SECONDS + 1)
    except BaseException:
        await close(connection)
        raise


def _address(url: str, name: str) -> URL:
    return URL(url).update_query(heartbeat=HEARTBEAT_SECONDS, name=name)


async def close(connection: AbstractConnection | None) -> None:
    """Close for good; a broker that is away, or reads nothing, is no reason to wait.

    The library waits for what is in the socket's buffer, and swallows a cancellation while it does (measured under a
    memory alarm): its work goes on by itself.
    """
    if connection is None:
        return
    closing = asyncio.create_task(connection.close())
    await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
    if not closing.done():
        closing.cancel()
        _unclosed.add(closing)
        closing.add_done_callback(_unclosed.discard)
    elif not closing.cancelled() and (error := closing.exception()):
        log.debug("broker.close_failed", reason=type(error).__name__)


async def keep_trying(step: Callable[[], Coroutine[Any, Any, T]], what: str) -> T:
    """Repeat a step until the broker lets it succeed; told once per kind of trouble."""
    told: set[str] = set()
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(BrokerUnavailable), wait=wait_exponential(multiplier=0.2, max=5)
    ):
        with attempt:
            try:
                return await step()
            except BrokerUnavailable as error:
                if str(error) not in told:
                    log.warning("broker.waiting", step=what, reason=str(error))
                    told.add(str(error))
                raise
    raise AssertionError("unreachable: retries have no end")
