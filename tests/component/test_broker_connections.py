"""Connections to a broker that is not there, or no longer."""

from __future__ import annotations

import gc
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aio_pika.connection import Connection
from aio_pika.exceptions import AMQPConnectionError

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


READER = "Task exception was never retrieved\nfuture: <Task finished coro=<Channel._reader() done, defined at {}:659>>"


@pytest.mark.parametrize(
    ("path", "error", "is_told"),
    [
        ("/venv/aiormq/channel.py", TimeoutError(), False),
        ("/venv/aiormq/channel.py", AMQPConnectionError(), False),
        ("/venv/aiormq/channel.py", ValueError("a bug"), True),
        ("/gateway/common/broker/consumer.py", TimeoutError(), True),
    ],
)
def test_how_the_library_gave_up_a_lost_channel_is_no_error(
    caplog: pytest.LogCaptureFixture, path: str, error: Exception, is_told: bool
) -> None:
    """Seen after a stop of 17 s: it had not been closed in time."""
    logging.getLogger("asyncio").error(READER.format(path), exc_info=error)
    assert bool(caplog.records) == is_told
