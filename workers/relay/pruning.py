"""Forgetting: what a listing's history no longer needs goes from the store, now and then, a little at a time."""

from __future__ import annotations

import asyncio

from common.errors import StoreUnavailable
from common.logs import get_logger
from common.process import Bugs, pause
from common.store.leader import Leadership
from workers.relay.store.history import HistoryStore

FIRST_SECONDS = 60.0
EVERY_SECONDS = 3600.0
BATCH = 500
BETWEEN_SECONDS = 0.05
"""Writers that wait for a batch come between two."""

log = get_logger(__name__)


class Pruning:
    """Deletes in small batches; of several relays one at a time does."""

    def __init__(self, store: HistoryStore, leadership: Leadership) -> None:
        self._store = store
        self._leadership = leadership
        self._bugs = Bugs("history.bug")

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`: soon after the start, then every hour."""
        wait = FIRST_SECONDS
        while not await pause(stop, wait):
            wait = EVERY_SECONDS
            try:
                if await self._leadership.held():
                    await self.prune(stop)
            except StoreUnavailable as error:
                log.warning("history.waiting", reason=str(error))
            except Exception as error:  # noqa: BLE001  # what is left waits for the next hour
                self._bugs.survive(error)
            finally:
                await self._leadership.release()

    async def prune(self, stop: asyncio.Event) -> None:
        """Once through everything, or until `stop`.

        Raises:
            StoreUnavailable.
        """
        events = attempts = 0
        cursor = None
        while not stop.is_set():
            found = await self._store.old_events(cursor, BATCH)
            events += await self._store.delete_events(found)
            if len(found) < BATCH:
                break
            cursor = found[-1]
            await pause(stop, BETWEEN_SECONDS)
        for forget in (self._store.delete_old_attempts, self._store.delete_surplus_attempts):
            while not stop.is_set() and (deleted := await forget(BATCH)):
                attempts += deleted
                await pause(stop, BETWEEN_SECONDS)
        if events or attempts:
            log.info("history.pruned", events=events, attempts=attempts)
