"""Clocks jump by an hour, and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from ops.prove.clock import Clock
from ops.prove.plan import Kind
from ops.prove.troubles.scene import Happen, Scene

HOUR = 3600
STRAGGLE_SECONDS = 2.0
"""So much later Syncaroo has noticed that what we issued meanwhile is too old now."""


def happenings(clocks: tuple[str, ...]) -> dict[Kind, Happen]:
    """Both ways, for each clock that can be put; that of a database is asked for in a session of it."""
    ways = {"ahead": HOUR, "behind": -HOUR}
    return {
        Kind(f"{which} clock an hour {way}", places, (3.0, 10.0)): partial(wrong, which, seconds)
        for which, places in ((one, ("clock", "store")) for one in clocks)
        for way, seconds in ways.items()
    }


@asynccontextmanager
async def wrong(which: str, seconds: float, scene: Scene) -> AsyncIterator[None]:
    """It is so much ahead; what we have issued is too old, or not yet good."""
    clock: Clock = scene.clocks[which]
    async with scene.noted(scene.unfit):
        await clock.put(seconds)
        try:
            yield
        finally:
            await clock.put(0)
            await asyncio.sleep(STRAGGLE_SECONDS)
