"""`/schemas/…`, `/asyncapi.json` and `openapi.json`: made once, of this deployment, and answered to anybody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import hdrs, web

from common.codec import dumps
from ingress.documents.asyncapi import asyncapi
from ingress.documents.index import index_of
from ingress.documents.openapi import openapi
from ingress.documents.place import Place
from ingress.problems import problem
from schemas.catalogue import DOCUMENTS, published

JSON = "application/json"
SCHEMA = "application/schema+json"
ASYNCAPI = "application/vnd.aai.asyncapi+json; version=3.0.0"
OPENAPI = "application/vnd.oai.openapi+json; version=3.1.0"
CACHED = "public, max-age=300"


class DocumentsHandler:
    """Serves the documents of a deployment; needs neither store nor broker."""

    def __init__(self, place: Place, folder: Path = DOCUMENTS) -> None:
        served = published(place.source, folder)
        self._schemas = {one.place: dumps(one.schema) for one in served}
        self._whole = {
            f"{place.prefix}/openapi.json": (OPENAPI, dumps(openapi(place))),
            "/asyncapi.json": (ASYNCAPI, dumps(asyncapi(place))),
            "/schemas": (JSON, dumps(index_of(served, place))),
        }

    def routes(self) -> list[web.RouteDef]:
        """The routes, without trailing slashes."""
        whole = [web.get(path, _answering(body, kind)) for path, (kind, body) in self._whole.items()]
        parts = ("/schemas/{name}/{version}", "/schemas/{kind}/{name}/{version}")
        return [*whole, *(web.get(path, self.schema) for path in parts)]

    async def schema(self, request: web.Request) -> web.Response:
        """One schema, by its place."""
        place = "/".join(request.match_info[part] for part in ("kind", "name", "version") if part in request.match_info)
        body = self._schemas.get(place)
        if body is None:
            return problem(404, "/problems/not-found", "Not found", "There is no such schema. GET /schemas lists them.")
        return _answer(body, SCHEMA)


def _answering(body: bytes, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        return _answer(body, kind)

    return answer


def _answer(body: bytes, kind: str) -> web.Response:
    headers: dict[Any, str] = {hdrs.CONTENT_TYPE: kind, hdrs.CACHE_CONTROL: CACHED}
    return web.Response(body=body, headers=headers)
