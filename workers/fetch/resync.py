"""Reading everything known again: from time to time, after a first burst, and when a connection is oddly silent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from common.clock import Monotonic, monotonic_seconds
from common.errors import StoreUnavailable
from common.logs import get_logger
from common.process import Bugs, pause
from common.settings import ResyncSettings
from workers.fetch.rereading import Terms
from workers.fetch.store.resyncs import LOOK_BATCH, Begun, ResyncStore

LOOK_SECONDS = 5.0
LOOKS_PER_TIME = 5
"""A short time of the settings is met within a fifth of itself."""

log = get_logger(__name__)


class Rereading:
    """Looks at the feeds every few seconds: what no webhook told comes right all the same."""

    def __init__(
        self,
        store: ResyncStore,
        settings: ResyncSettings,
        wake: Callable[[], None],
        clock: Monotonic = monotonic_seconds,
    ) -> None:
        self._store = store
        self._terms = Terms(settings.resync_interval, settings.burst_quiet, settings.silence_after)
        self._wake = wake
        self._clock = clock
        self._look_now = asyncio.Event()
        self._bugs = Bugs("fetch.bug")

    def look(self) -> None:
        """Look now: a connection is to be read again."""
        self._look_now.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; any number of processes may do so at once."""
        shortest = self._terms.shortest
        pace = LOOK_SECONDS if shortest is None else min(LOOK_SECONDS, shortest.total_seconds() / LOOKS_PER_TIME)
        began = self._clock()
        stopping = asyncio.create_task(self._look_at(stop))
        try:
            while not stop.is_set():
                self._look_now.clear()
                listening = timedelta(seconds=self._clock() - began)
                await self._read_due(self._terms.heard_for(listening), stop)
                await pause(self._look_now, pace)
        finally:
            stopping.cancel()

    async def _read_due(self, terms: Terms, stop: asyncio.Event) -> None:
        try:
            due = await self._store.due(terms)
            for connection_id in due:
                begun = None if stop.is_set() else await self._store.read_again(connection_id, terms)
                if begun is not None:
                    self._wake()
                    _tell(begun)
        except StoreUnavailable as error:
            log.warning("fetch.waiting", reason=str(error))
        except Exception as error:  # noqa: BLE001  # what is due stays so
            self._bugs.survive(error)
        else:
            if len(due) == LOOK_BATCH:
                self.look()

    async def _look_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.look()


def _tell(begun: Begun) -> None:
    log.info("resync.begun", connection_id=begun.connection_id, why=begun.why, targets=begun.targets)
    if begun.why == "silence" and begun.feed.heard_at is not None:
        quiet = begun.at - begun.feed.heard_at
        log.warning(
            "connection.silent",
            connection_id=begun.connection_id,
            quiet_seconds=round(quiet.total_seconds()),
            usual_seconds=round(begun.feed.usual_quiet or 0),
        )
