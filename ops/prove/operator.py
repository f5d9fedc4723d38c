"""The person who is called when our access to Syncaroo is lost."""

from __future__ import annotations

import asyncio

import aiohttp

from common.errors import GatewayError
from ops.demo import story
from ops.demo.stage import Stage
from sandbox.driver import DriverError

LOOK_SECONDS = 2.0


class Operator:
    """`calls` is how often access was lost."""

    def __init__(self, stage: Stage) -> None:
        self.calls = 0
        self._stage = stage
        self._is_called = False

    async def watch(self) -> None:
        """Authorises again whenever it is asked for, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except (GatewayError, DriverError, aiohttp.ClientError, TimeoutError, OSError, ValueError):
                continue  # something is in trouble on the way: a person tries again

    async def look(self) -> None:
        """Authorises again if it is asked for; raises whatever stands in the way."""
        is_lost = (await self._stage.admin.status())["grant"]["state"] != "active"
        self.calls += is_lost and not self._is_called
        self._is_called = is_lost
        if is_lost:
            await story.connect_admin(self._stage)
            self._is_called = False
