"""`/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry

from common.codec import dumps
from common.metrics import exposition
from ingress.health.readiness import Readiness
from ingress.health.store_watch import StoreWatch

RETRY_AFTER_SECONDS = 2


class Alive(msgspec.Struct, frozen=True):
    """The process runs."""

    status: Literal["alive"] = "alive"


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Webhooks can be taken; without the store everything else waits."""

    status: Literal["ready"] = "ready"
    store: Literal["up", "down"]


class Unready(msgspec.Struct, frozen=True, kw_only=True):
    """Webhooks cannot be taken; `reason` says why."""

    status: Literal["unready"] = "unready"
    reason: str
    store: Literal["up", "down"]


class HealthHandler:
    """Asked by whatever starts, balances and watches processes; needs no token and tells no secret."""

    def __init__(
        self,
        readiness: Readiness,
        store: StoreWatch,
        registry: CollectorRegistry,
        look: Callable[[], Awaitable[None]],
    ) -> None:
        """`look` brings what the registry shows of store and broker up to date, in bounded time."""
        self._readiness = readiness
        self._store = store
        self._registry = registry
        self._look = look

    def routes(self) -> list[web.RouteDef]:
        """Alive and ready, on every port."""
        return [web.get("/healthz", self.healthz), web.get("/readyz", self.readyz)]

    def metrics_routes(self) -> list[web.RouteDef]:
        """The numbers, on `OPS_PORT` where there is one."""
        return [web.get("/metrics", self.metrics)]

    async def healthz(self, _request: web.Request) -> web.Response:
        """200 as long as the event loop runs."""
        return _answer(200, Alive())

    async def readyz(self, _request: web.Request) -> web.Response:
        """200 when webhooks can be taken, else 503 with the reason; the store's state beside it."""
        trouble = await self._readiness.trouble()
        if trouble is None:
            return _answer(200, Ready(store=self._store.state))
        return _answer(503, Unready(reason=trouble, store=self._store.state))

    async def metrics(self, _request: web.Request) -> web.Response:
        """Prometheus' text format."""
        await self._look()
        return exposition(self._registry)


def _answer(status: int, body: Alive | Ready | Unready) -> web.Response:
    headers = {hdrs.CACHE_CONTROL: "no-store"}
    if status == 503:
        headers[hdrs.RETRY_AFTER] = str(RETRY_AFTER_SECONDS)
    return web.Response(status=status, body=dumps(body), content_type="application/json", headers=headers)
