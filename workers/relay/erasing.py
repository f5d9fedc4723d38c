"""Erasing, after the fact: what is still kept of erased users' connections goes, a little at a time."""

from __future__ import annotations

import asyncio

from common.errors import StoreUnavailable
from common.logs import get_logger
from common.process import Bugs, pause
from common.store.erasing import ErasureStore

LOOK_SECONDS = 5.0
BETWEEN_SECONDS = 0.05
"""Writers that wait for a batch come between two."""

log = get_logger(__name__)


class Erasing:
    """Goes on where a process that died, or that had no more time, left off; any number of relays may do so at once."""

    def __init__(self, store: ErasureStore) -> None:
        self._store = store
        self._bugs = Bugs("erasing.bug")

    async def run(self, stop: asyncio.Event) -> None:
        """Look again and again, until `stop`."""
        while not await pause(stop, LOOK_SECONDS):
            try:
                await self.erase(stop)
            except StoreUnavailable as error:
                log.warning("erasing.waiting", reason=str(error))
            except Exception as error:  # noqa: BLE001  # what is left waits for the next look
                self._bugs.survive(error)

    async def erase(self, stop: asyncio.Event) -> None:
        """All that there is now, or until `stop`.

        Raises:
            StoreUnavailable.
        """
        for connection_id in await self._store.waiting():
            while not stop.is_set() and await self._store.erase_some(connection_id):
                await pause(stop, BETWEEN_SECONDS)
