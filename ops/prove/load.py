"""What happens in Syncaroo's world meanwhile."""

from __future__ import annotations

import asyncio
from random import Random

from sandbox.driver import SandboxDriver

EVERY_SECONDS = 0.1
MIX = {"price": 60, "rename": 25, "move": 8, "room": 3, "remove": 4}
"""How often each kind of change comes. What is removed comes back instead of another being removed."""
BURST_EVERY = 50
BURST, TARGETS = 40, 5
"""Now and then so many webhooks about so few targets come at once."""


class Load:
    """Changes until it is cancelled, the same ones for the same seed; `changes` counts them."""

    def __init__(self, sandbox: SandboxDriver, seed: int) -> None:
        self._sandbox = sandbox
        self._dice = Random(f"load {seed}")  # noqa: S311  # seeded, so that a run can be repeated
        self._is_removed = False
        self.changes = 0

    async def run(self) -> None:
        """One after another, in a steady pace."""
        kinds, weights = list(MIX), list(MIX.values())
        while True:
            (kind,) = self._dice.choices(kinds, weights)
            if kind == "remove":
                kind = "restore" if self._is_removed else "remove"
                self._is_removed = not self._is_removed
            await self._sandbox.change(kind, wait=False)
            self.changes += 1
            if self.changes % BURST_EVERY == 0:
                await self._sandbox.burst(BURST, TARGETS, shuffle=True, wait=False)
            await asyncio.sleep(EVERY_SECONDS)
