"""Connections to a broker that is not there."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aio_pika.connection import Connection

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
