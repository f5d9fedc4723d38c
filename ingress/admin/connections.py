"""`connections/…`: whose connections there are, ending one, reading everything of one again."""

from __future__ import annotations

from aiohttp import web

from ingress.admin.answers import answer, done, missing, page_of, query_of
from ingress.admin.rules import cursor, read_paging
from ingress.admin.store.connections import ConnectionStore
from ingress.parameters import one, positive_number
from ingress.problems import problem


class ConnectionEndpoints:
    """Users' connections."""

    def __init__(self, store: ConnectionStore) -> None:
        self._store = store

    async def list(self, request: web.Request) -> web.Response:
        """By number."""
        paging = read_paging(query_of(request), int)
        found = await self._store.connections(paging)
        return page_of(found, cursor(found[-1].connection_id) if len(found) == paging.limit else None)

    async def get(self, request: web.Request) -> web.Response:
        """One connection."""
        found = await self._store.connection(_connection_id(request))
        return missing("connection") if found is None else answer(found)

    async def delete(self, request: web.Request) -> web.Response:
        """Revoke: tokens are refused, syncing stops, listings are kept."""
        return done() if await self._store.revoke(_connection_id(request)) else missing("connection")

    async def resync(self, request: web.Request) -> web.Response:
        """Every known target is wanted again (202), or those of `locationId`; 409 for a revoked connection, which is
        not synced any more.
        """
        location_id = one(query_of(request), "locationId")
        found = await self._store.connection(_connection_id(request))
        if found is None:
            return missing("connection")
        if found.state == "revoked":
            detail = "The connection was revoked. The user has to authorize it again first."
            return problem(409, "/problems/connection-revoked", "Connection revoked", detail)
        return answer({"targets": await self._store.resync(found.connection_id, location_id)}, 202)


def _connection_id(request: web.Request) -> int:
    return positive_number(request.match_info["connectionId"], "connectionId")
