"""The person who is called when our access to Syncaroo is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from common.errors import GatewayError
from ops.demo import story
from ops.demo.stage import Stage
from sandbox.driver import DriverError

LOOK_SECONDS = 2.0


class Operator:
    """Looks every now and then, and tries again when something is in trouble on the way."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Authorises again whenever it is asked for, as long as the block lasts."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look()
            except (GatewayError, DriverError, aiohttp.ClientError, TimeoutError, OSError, ValueError):
                continue

    async def _look(self) -> None:
        if (await self._stage.admin.status())["grant"]["state"] != "active":
            await story.connect_admin(self._stage)
