"""What goes on beside the work, again and again: a bug in it that passes ends no process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from common.settings import ResyncSettings
from tests.waiting import until
from workers.fetch import resync
from workers.fetch.resync import Rereading
from workers.relay import erasing, pruning
from workers.relay.erasing import Erasing
from workers.relay.pruning import Pruning


class Flawed:
    """A store whose first answer is a bug; it has nothing to do."""

    def __init__(self) -> None:
        self.asked = 0
        self._times = count()

    async def _ask(self, *_: Any) -> list[Any]:
        self.asked += 1
        if next(self._times) == 0:
            raise ValueError("a bug")
        return []

    waiting = old_events = due = _ask

    async def delete_events(self, _: Any) -> int:
        return 0

    delete_old_attempts = delete_surplus_attempts = delete_events

    async def held(self) -> bool:
        return True

    async def release(self) -> None:
        pass


def _rereading(store: Any) -> Rereading:
    return Rereading(store, ResyncSettings(resync_interval=timedelta(hours=6)), lambda: None)


@pytest.mark.parametrize(
    ("module", "pause", "make"),
    [
        (erasing, "LOOK_SECONDS", Erasing),
        (pruning, "EVERY_SECONDS", lambda store: Pruning(store, store)),
        (resync, "LOOK_SECONDS", _rereading),
    ],
    ids=["erasing", "pruning", "reading again"],
)
async def test_a_bug_that_passes_is_survived(
    module: Any, pause: str, make: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, pause, 0.01)
    monkeypatch.setattr(pruning, "FIRST_SECONDS", 0.01)
    store, stop = Flawed(), asyncio.Event()
    running = asyncio.create_task(make(store).run(stop))
    await until(lambda: store.asked > 1)
    stop.set()
    await running
