"""How the store is. The ingress does not wait for it: webhooks are taken without it."""

from __future__ import annotations

import asyncio
from typing import Literal

from common.errors import StoreUnavailable
from common.logs import get_logger
from common.process import done_before, pause
from common.store.engine import Store
from common.store.schema import current_revision, wait_for_store

POLL_SECONDS = 5.0

log = get_logger(__name__)


class StoreWatch:
    """Looks again and again; `state` is what it saw last."""

    def __init__(self, store: Store, facts: dict[str, str]) -> None:
        self._store = store
        self._facts = facts
        self.state: Literal["up", "down"] = "down"

    def is_up(self) -> bool:
        """Whether it was there when it was last looked at, with our schema in it."""
        return self.state == "up"

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop`.

        Raises:
            SettingsError: the store is another environment's, or a newer program's.
        """
        await done_before(stop, wait_for_store(self._store, self._facts))
        while not stop.is_set():
            await self._look()
            await pause(stop, POLL_SECONDS)

    async def _look(self) -> None:
        before = self.state
        try:
            await current_revision(self._store)
        except StoreUnavailable as error:
            self.state = "down"
            if before == "up":
                log.warning("store.down", reason=str(error))
        else:
            self.state = "up"
            if before == "down":
                log.info("store.up")
