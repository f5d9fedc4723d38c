"""`targets`, `attempts`: which URLs are wanted, how each stands, and what came of asking it."""

from __future__ import annotations

from aiohttp import web

from ingress.admin.answers import page_of, query_of
from ingress.admin.rules import connection_of, cursor, path_of, read_paging, read_target_filter
from ingress.admin.store.targets import TargetStore
from ingress.parameters import BadInput


class TargetEndpoints:
    """Targets and their attempts."""

    def __init__(self, store: TargetStore) -> None:
        self._store = store

    async def list(self, request: web.Request) -> web.Response:
        """By connection and URL, filtered."""
        query = query_of(request)
        paging = read_paging(query, int, str)
        found = await self._store.targets(read_target_filter(query), paging)
        more = len(found) == paging.limit
        return page_of(found, cursor(found[-1].connection_id, found[-1].url) if more else None)

    async def attempts(self, request: web.Request) -> web.Response:
        """Those for the spellings of one URL, the newest first."""
        query = query_of(request)
        paging = read_paging(query, int)
        connection_id, path = connection_of(query), path_of(query)
        if connection_id is None or path is None:
            raise BadInput("connectionId and url must be given")
        found = await self._store.attempts(connection_id, path, paging)
        return page_of(found, cursor(found[-1].started) if len(found) == paging.limit else None)
