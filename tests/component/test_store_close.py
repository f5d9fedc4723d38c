"""Closing a store while a statement is under way: no thread may outlive the event loop that it answers to."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from sqlalchemy import text

from common.store.engine import Store


async def test_a_read_given_up_at_any_step_has_ended_when_close_returns(tmp_path: Path) -> None:
    """Cancelled while connecting, beginning, asking, closing: each leaves its thread in another state."""
    before = set(threading.enumerate())
    url = f"sqlite+aiosqlite:///{tmp_path / 'gateway.db'}"

    async def read(store: Store) -> None:
        async with store.reading() as transaction:
            await transaction.execute(text("SELECT 1"))

    async def give_up_after(steps: int) -> None:
        store = Store(url)
        reading = asyncio.create_task(read(store))
        for _ in range(steps):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await store.close()

    for steps in range(40):
        await give_up_after(steps)
        left = [thread.name for thread in set(threading.enumerate()) - before if "connection_worker" in thread.name]
        assert not left, f"after {steps} steps"
