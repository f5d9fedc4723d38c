"""Questions to a broker that consume nothing and leave nothing.

A right is asked for by a request that the broker refuses in any case, with another error after it has looked at the
right: 403 is "not allowed", 404 "not there", 406 "allowed, but this request is wrong". Measured on RabbitMQ 3.10.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import AMQPError, AuthenticationError, ChannelPreconditionFailed, ProbableAuthenticationError
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, InvalidFrameError
from pamqp.commands import Basic

from common.broker.connection import BROKER_ERRORS, close
from common.broker.setup import difference
from common.broker.topology import RELAY_POKE, WORK, Queue
from ops.doctor.rights import Right

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 2.0

Answer = Literal["allowed", "forbidden", "missing", "blocked"]
Trouble = Literal["password", "vhost", "name", "refused", "tls", "silent", "other"]


class NoBroker(Exception):
    """The broker does not let us in; `kind` says why."""

    def __init__(self, kind: Trouble, words: str) -> None:
        super().__init__(words)
        self.kind = kind


async def open_broker(url: str) -> AbstractConnection:
    """A connection.

    Raises:
        NoBroker.
    """
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await aio_pika.connect(url, timeout=CONNECT_SECONDS)
    except (*BROKER_ERRORS, ValueError) as error:
        raise _no_broker(error) from error


_TROUBLES: tuple[tuple[tuple[type[BaseException], ...], Trouble, str], ...] = (
    ((AuthenticationError, ProbableAuthenticationError), "password", "it refuses user and password"),
    # A Close where OpenOk is due: so the library tells of a virtual host.
    ((InvalidFrameError,), "vhost", "it has no such virtual host, or the user no rights in it"),
    ((TimeoutError,), "silent", f"no AMQP answer within {CONNECT_SECONDS:g} s"),
    ((ssl.SSLError,), "tls", "TLS fails"),
    ((ConnectionRefusedError,), "refused", "nothing listens there"),
    ((socket.gaierror,), "name", "its name is not known"),
    ((asyncio.IncompleteReadError,), "silent", "what listens there does not speak AMQP"),
)


def _no_broker(error: BaseException) -> NoBroker:
    for kinds, trouble, words in _TROUBLES:
        if isinstance(error, kinds) or isinstance(error.__cause__, kinds):
            return NoBroker(trouble, words)
    return NoBroker("other", f"it does not let us in ({type(error.__cause__ or error).__name__})")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[AbstractConnection]:
    """A connection, until the end of the block.

    Raises:
        NoBroker.
    """
    connection = await open_broker(url)
    try:
        yield connection
    finally:
        await close(connection)


async def may(connection: AbstractConnection, right: Right) -> Answer:
    """Whether our user has the right. Nothing is published, nobody is subscribed."""
    ask = _ask_to_write if right.verb == "write" else _ask_to_read
    return (await _asked(connection, lambda channel: ask(channel, right.name)))[0]


async def _ask_to_write(channel: Any, exchange: str) -> None:
    # Somebody else's name and a lifetime that is none: refused after the right was looked at, before it is routed.
    properties = Basic.Properties(user_id="nobody", expiration="none")
    await channel.basic_publish(b"", exchange=exchange, routing_key="doctor", properties=properties, mandatory=True)


async def _ask_to_read(channel: Any, queue: str) -> None:
    await channel.basic_consume(queue, _never, arguments={"x-priority": "none"})


async def _never(_: Any) -> None:
    """Nothing is delivered to who was refused."""


async def may_listen(connection: AbstractConnection) -> Answer:
    """Whether our user may have a queue that the broker names and bind it; it goes with the connection."""

    async def ask(channel: Any) -> None:
        declared = await channel.queue_declare(exclusive=True, auto_delete=True)
        await channel.queue_bind(declared.queue, WORK, f"{RELAY_POKE}.doctor")
        await channel.queue_delete(declared.queue)

    return (await _asked(connection, ask))[0]


async def has_exchange(connection: AbstractConnection, name: str) -> bool:
    """Whether it is there."""
    asked = await _asked(connection, lambda channel: channel.exchange_declare(name, passive=True))
    return asked[0] != "missing"


async def has_queue(connection: AbstractConnection, name: str) -> bool:
    """Whether it is there."""
    asked = await _asked(connection, lambda channel: channel.queue_declare(name, passive=True))
    return asked[0] != "missing"


async def drift_of(connection: AbstractConnection, queue: Queue) -> tuple[Answer, str]:
    """How a queue that is there differs from what we declare; `forbidden`: our user may not declare it, so unknown."""
    return await _asked(
        connection, lambda channel: channel.queue_declare(queue.name, durable=True, arguments=queue.arguments)
    )


async def _asked(connection: AbstractConnection, ask: Callable[[Any], Awaitable[Any]]) -> tuple[Answer, str]:
    """The broker's answer, and the difference that it tells of."""
    channel = connection.channel()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await channel.initialize()
            await ask(await channel.get_underlay_channel())
    except ChannelAccessRefused:
        return "forbidden", ""
    except ChannelNotFoundEntity:
        return "missing", ""
    except ChannelPreconditionFailed as error:
        return "allowed", difference(str(error)) if "inequivalent" in str(error) else ""
    except TimeoutError:
        return "blocked", ""
    except (AMQPError, RuntimeError) as error:
        raise NoBroker("other", f"it ended the connection ({type(error).__name__})") from error
    return "allowed", ""
