"""Closing a store while a statement is under way: no thread may outlive the event loop that it answers to."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from sqlalchemy import text

from common.store.engine import Store

_LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000000) SELECT count(*) FROM n"


async def test_a_statement_that_was_given_up_ends_before_close_returns(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    store = Store(f"sqlite+aiosqlite:///{tmp_path / 'gateway.db'}")
    begun = asyncio.Event()

    async def read() -> None:
        async with store.reading() as transaction:
            await transaction.execute(text("SELECT 1"))
            begun.set()
            await transaction.execute(text(_LONG))

    reading = asyncio.create_task(read())
    await begun.wait()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await store.close()
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not [name for name in left if "connection_worker" in name]
