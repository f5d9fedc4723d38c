"""Connections to a broker that is not there, or no longer."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aio_pika.connection import Connection
from aio_pika.exceptions import AMQPConnectionError
from aiormq.tools import Countdown

from common.broker.connection import connect_once, connect_plainly
from common.errors import BrokerUnavailable
from ops.children import free_port


@pytest.mark.parametrize("connect", [connect_once, connect_plainly])
async def test_a_connection_that_never_was_is_closed(connect: Callable[[str, str], Awaitable[Any]]) -> None:
    """What is not closed, the collector closes, from any thread: from SQLite's it cannot (`… was never awaited`)."""
    port = free_port()
    with pytest.raises(BrokerUnavailable):
        await connect(f"amqp://127.0.0.1:{port}/", "nobody")
    left = [one for one in gc.get_objects() if isinstance(one, Connection) and one.url.port == port]
    assert [one for one in left if not one.is_closed] == []


async def ours(work: Awaitable[None]) -> None:
    """Nothing of the library's."""
    await work


async def broken(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("around", "error", "is_told"),
    [
        (Countdown(), TimeoutError(), False),
        (Countdown(), AMQPConnectionError(), False),
        (Countdown(), ValueError("a bug"), True),
        (ours, TimeoutError(), True),
    ],
)
async def test_how_a_task_of_the_library_ended_that_nobody_waits_for_is_no_error(
    caplog: pytest.LogCaptureFixture, around: Callable[[Any], Any], error: Exception, is_told: bool
) -> None:
    """Its reader gave up a lost channel, seen after a stop of 17 s."""
    await asyncio.wait([asyncio.create_task(around(broken(error)))])
    gc.collect()
    assert any("never retrieved" in record.getMessage() for record in caplog.records) == is_told
