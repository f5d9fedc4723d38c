"""A user's listings as Syncaroo and the consent page show them: the platform's answer, else what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from common.errors import GatewayError
from common.logs import get_logger
from ingress.inventory import Location, as_map
from ingress.platform.store import InventoryStore

log = get_logger(__name__)


class Asked(Protocol):
    """What is needed of `ingress.platform.client.PlatformInventory`."""

    async def locations(self, user_id: str) -> list[Location]:
        """The user's listings; raises a GatewayError when there is no answer that is one."""


class Listings:
    """Whoever is asked, there is an answer."""

    def __init__(self, store: InventoryStore, platform: Asked | None) -> None:
        self._store = store
        self._platform = platform

    async def of(self, user_id: str, connection_id: int, kept: Sequence[Location]) -> Sequence[Location]:
        """What the platform says now, else `kept`; what it says is kept for the next time that it does not answer."""
        if self._platform is None:
            return kept
        try:
            told = await self._platform.locations(user_id)
        except GatewayError as error:
            log.warning("inventory.not_asked", connection_id=connection_id, reason=str(error))
            return kept
        await self._keep(user_id, connection_id, told, kept)
        return told

    async def _keep(self, user_id: str, connection_id: int, told: Sequence[Location], kept: Sequence[Location]) -> None:
        known = as_map(kept)
        if all(known.get(one.id) == one for one in told) and _live(kept) <= {one.id for one in told}:
            return
        try:
            await self._store.put_locations(user_id, told)
        except GatewayError as error:
            log.warning("inventory.not_kept", connection_id=connection_id, reason=str(error))


def _live(locations: Sequence[Location]) -> set[str]:
    return {one.id for one in locations if one.status != "deleted"}
