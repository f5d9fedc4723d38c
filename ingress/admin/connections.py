"""`connections/…`: whose connections there are, ending one, reading everything of one again."""

from __future__ import annotations

import msgspec
from aiohttp import web

from common.logs import get_logger
from ingress.admin.answers import answer, connection_id_of, done, missing, page_of, query_of, revoked
from ingress.admin.rules import cursor, read_paging
from ingress.admin.store.connections import ConnectionStore
from ingress.parameters import one

log = get_logger(__name__)


class ResyncBegun(msgspec.Struct, frozen=True):
    """So many targets are wanted again."""

    targets: int


class ConnectionEndpoints:
    """Users' connections."""

    def __init__(self, store: ConnectionStore) -> None:
        self._store = store

    async def list(self, request: web.Request) -> web.Response:
        """By number; `userId` filters."""
        query = query_of(request)
        paging = read_paging(query, int)
        found = await self._store.connections(one(query, "userId"), paging)
        return page_of(found, cursor(found[-1].connection_id) if len(found) == paging.limit else None)

    async def get(self, request: web.Request) -> web.Response:
        """One connection."""
        found = await self._store.connection(connection_id_of(request))
        return missing("connection") if found is None else answer(found)

    async def delete(self, request: web.Request) -> web.Response:
        """Revoke: tokens are refused, syncing stops, listings are kept."""
        return done() if await self._store.revoke(connection_id_of(request)) else missing("connection")

    async def resync(self, request: web.Request) -> web.Response:
        """Every known target is wanted again (202), or those of `locationId`; 409 for a revoked connection, which is
        not synced any more.
        """
        location_id = one(query_of(request), "locationId")
        found = await self._store.connection(connection_id_of(request))
        if found is None:
            return missing("connection")
        if found.state == "revoked":
            return revoked()
        targets = await self._store.resync(found.connection_id, location_id)
        log.info(
            "resync.begun", connection_id=found.connection_id, why="hand", targets=targets, location_id=location_id
        )
        return answer(ResyncBegun(targets), 202)
