"""`held`, `connections/{connectionId}/held/…`: what vanished together with too many others, until a person decides."""

from __future__ import annotations

import msgspec
from aiohttp import web

from common.logs import get_logger
from ingress.admin.answers import answer, connection_id_of, missing, page_of, query_of, revoked
from ingress.admin.rules import cursor, read_paging
from ingress.admin.store.connections import ConnectionStore
from ingress.admin.store.held import Decision, HeldStore
from ingress.parameters import one, positive_number
from ingress.problems import problem

log = get_logger(__name__)


class Decided(msgspec.Struct, frozen=True):
    """So many listings were held, and are not any more."""

    held: int


class HeldEndpoints:
    """Held listings."""

    def __init__(self, store: HeldStore, connections: ConnectionStore) -> None:
        self._store = store
        self._connections = connections

    async def list(self, request: web.Request) -> web.Response:
        """By connection and id; `connectionId` filters."""
        query = query_of(request)
        paging = read_paging(query, int, str)
        text = one(query, "connectionId")
        connection_id = None if text is None else positive_number(text, "connectionId")
        found = await self._store.list(connection_id, paging)
        more = len(found) == paging.limit
        return page_of(found, cursor(found[-1].connection_id, found[-1].listing_id) if more else None)

    async def approve(self, request: web.Request) -> web.Response:
        """Each is asked at its own URL, and deleted when that says so too (202); 409 for a revoked connection."""
        found = await self._connections.connection(connection_id_of(request))
        if found is not None and found.state == "revoked":
            return revoked()
        return await self._decide(request, "approve", 202)

    async def discard(self, request: web.Request) -> web.Response:
        """They stay; what is still absent at the next resync asks anew."""
        return await self._decide(request, "discard", 200)

    async def _decide(self, request: web.Request, decision: Decision, status: int) -> web.Response:
        """`held`, when given, is the number that the person saw: 409 when it is another one by now."""
        connection_id = connection_id_of(request)
        text = one(query_of(request), "held")
        if await self._connections.connection(connection_id) is None:
            return missing("connection")
        expected = None if text is None else positive_number(text, "held")
        held, done = await self._store.decide(connection_id, decision, expected)
        if not done:
            detail = f"{held} listings are held by now, not {expected}. Look at them again and decide then."
            return problem(409, "/problems/held-changed", "Something else is held", detail)
        if held:
            log.info("held.decided", connection_id=connection_id, decision=decision, held=held)
        return answer(Decided(held), status)
