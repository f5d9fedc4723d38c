"""`/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from common.codec import dumps
from ingress.health.readiness import Readiness
from ingress.health.store_watch import StoreWatch

RETRY_AFTER_SECONDS = 2


class HealthHandler:
    """Asked by whatever starts, balances and watches processes; needs no token and tells no secret."""

    def __init__(self, readiness: Readiness, store: StoreWatch, registry: CollectorRegistry) -> None:
        self._readiness = readiness
        self._store = store
        self._registry = registry

    def routes(self) -> list[web.RouteDef]:
        """Alive and ready, on every port."""
        return [web.get("/healthz", self.healthz), web.get("/readyz", self.readyz)]

    def metrics_routes(self) -> list[web.RouteDef]:
        """The numbers, on `OPS_PORT` where there is one."""
        return [web.get("/metrics", self.metrics)]

    async def healthz(self, _request: web.Request) -> web.Response:
        """200 as long as the event loop runs."""
        return _answer(200, {"status": "alive"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """200 when webhooks can be taken, else 503 with the reason; the store's state beside it."""
        trouble = await self._readiness.trouble()
        if trouble is None:
            return _answer(200, {"status": "ready", "store": self._store.state})
        return _answer(503, {"status": "unready", "reason": trouble, "store": self._store.state})

    async def metrics(self, _request: web.Request) -> web.Response:
        """Prometheus' text format."""
        return web.Response(body=generate_latest(self._registry), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_PLAIN_0_0_4})


def _answer(status: int, body: dict[str, str]) -> web.Response:
    headers = {hdrs.CACHE_CONTROL: "no-store"}
    if status == 503:
        headers[hdrs.RETRY_AFTER] = str(RETRY_AFTER_SECONDS)
    return web.Response(status=status, body=dumps(body), content_type="application/json", headers=headers)
