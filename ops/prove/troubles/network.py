"""The lines between us and what we stand on: dead, slow, cut, heard at one end alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial

from ops.prove.plan import Kind
from ops.prove.proxy import Mode
from ops.prove.troubles.scene import Happen, Scene
from ops.prove.wires import SYNCAROO, WEBHOOKS

MODES: dict[str, tuple[Mode, tuple[float, float]]] = {
    "dead": (Mode.BLACKHOLE, (1.0, 12.0)),
    "reset": (Mode.RESET, (0.5, 4.0)),
    "slow": (Mode.DELAY, (2.0, 10.0)),
    "deaf": (Mode.SWALLOW_REQUESTS, (1.0, 6.0)),
    "mute": (Mode.SWALLOW_ANSWERS, (1.0, 6.0)),
    "cut on the way there": (Mode.CUT_REQUESTS, (1.0, 4.0)),
    "cut on the way back": (Mode.CUT_ANSWERS, (1.0, 4.0)),
}
STRAGGLE_SECONDS = 1.0
"""What a line has held comes this much later at most."""


def happenings(wires: tuple[str, ...]) -> dict[Kind, Happen]:
    """Each in turn on each line."""
    return {
        Kind(f"line {wire}: {name}", (f"line {wire}",), seconds): partial(spoilt, wire, mode)
        for wire in wires
        for name, (mode, seconds) in MODES.items()
    }


@asynccontextmanager
async def spoilt(wire: str, mode: Mode, scene: Scene) -> AsyncIterator[None]:
    """The line does this; what Syncaroo has answered meanwhile may never have come, nor what it was answered."""
    noted = {SYNCAROO: scene.doubtful, WEBHOOKS: scene.unheard}.get(wire)
    async with nullcontext() if noted is None else scene.noted(noted):
        scene.wires.of[wire].mode = mode
        try:
            yield
        finally:
            scene.wires.of[wire].mode = Mode.PASS
            await asyncio.sleep(STRAGGLE_SECONDS)
