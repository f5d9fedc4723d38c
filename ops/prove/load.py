"""What happens in Syncaroo's world meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random

from sandbox.driver import DriverError, SandboxDriver

EVERY_SECONDS = 0.1
MIX = {"price": 60, "rename": 25, "move": 8, "room": 3, "remove": 4}
"""How often each kind of change comes. What is removed comes back instead of another being removed."""
BURST_EVERY = 50
BURST, TARGETS = 40, 5
"""Now and then so many webhooks about so few targets come at once."""


COLD_EVERY = 20
"""So often the price of a rate changes that is not touched before or after: nothing else asks for it."""


class Load:
    """Changes until it is cancelled, the same ones for the same seed; `changes` counts them."""

    def __init__(self, sandbox: SandboxDriver, seed: int) -> None:
        self._sandbox = sandbox
        self._dice = Random(f"load {seed}")  # noqa: S311  # seeded, so that a run can be repeated
        self._is_removed = False
        self.changes = 0

    async def run(self) -> None:
        """One after another, in a steady pace."""
        rates = await self._rates()
        cold = self._dice.sample(rates, len(rates) // 2)
        hot, known = [url for url in rates if url not in cold], {*rates}
        while True:
            is_cold = self.changes % COLD_EVERY == COLD_EVERY - 1
            if is_cold and not cold:
                cold = [url for url in await self._rates() if url not in known]
                known.update(cold)
                is_cold = bool(cold)
            kind = "price" if is_cold else self._kind()
            url = cold.pop() if is_cold else self._dice.choice(hot) if kind == "price" else None
            with suppress(DriverError):  # it has gone with its room
                await self._sandbox.change(kind, url, wait=False)
            self.changes += 1
            if self.changes % BURST_EVERY == 0:
                await self._sandbox.burst(BURST, TARGETS, shuffle=True, wait=False)
            await asyncio.sleep(EVERY_SECONDS)

    async def _rates(self) -> list[str]:
        """All there are; new ones come with new rooms."""
        return [url for url in (await self._sandbox.world()).items if "/rates/" in url]

    def _kind(self) -> str:
        (kind,) = self._dice.choices(list(MIX), list(MIX.values()))
        if kind == "remove":
            kind = "restore" if self._is_removed else "remove"
            self._is_removed = not self._is_removed
        return kind
