"""Every point at which a process is killed, as one table: which role, and what is reached there.

`POINTS[name].install(reach)` wraps the seam in the running process. Names are `<stage>.<where>`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common.broker.publisher import Outgoing, Publisher
from common.errors import UpstreamFailed
from ingress.oauth.store import OAuthStore
from tests.kill.seams import Method, Reach, after, before, before_commit, instead
from workers.fetch.client import SyncarooApi
from workers.fetch.store import TargetStore
from workers.reconcile.handler import ReconcileHandler
from workers.reconcile.store import ListingStore
from workers.relay.store import EventStore
from workers.token.client import TokenClient
from workers.token.store import GrantStore

UNDER_WAY_SECONDS = 0.5
"""After so long a request has left; the stand-in is told to answer it much later."""


@dataclass(frozen=True)
class Point:
    """`role` is what `ops.stack.ROLES` calls the process that dies there."""

    name: str
    role: str
    install: Callable[[Reach], None]


def _to(key: str) -> Callable[..., bool]:
    """Of publishes: those with a routing key that begins so."""

    def matches(message: Outgoing, *_: Any) -> bool:
        return message.routing_key.startswith(key)

    return matches


def _page_of_many(url: str, *_: Any) -> bool:
    return "page=2" in url


def _gave_something(*given: Any) -> bool:
    return bool(given[-1])


def _gave_claims(_limit: int, result: tuple[list[Any], Any]) -> bool:
    return bool(result[0])


def _request_under_way(reach: Reach) -> None:
    def wrap(original: Method) -> Method:
        async def refresh(self: Any, *given: Any) -> Any:
            asking = asyncio.ensure_future(original(self, *given))
            await asyncio.wait([asking], timeout=UNDER_WAY_SECONDS)
            if not asking.done():
                reach()
            return await asking

        return refresh

    instead(TokenClient, "refresh", wrap)


def _copy_of_a_retry(reach: Reach) -> None:
    def wrap(original: Method) -> Method:
        async def refuse(self: Any, *given: Any) -> Any:
            raise UpstreamFailed("as ordered")

        return refuse

    instead(ReconcileHandler, "__call__", wrap)
    after(Publisher, "publish", reach, _to("delay.reconcile."))


_TABLE = [
    Point("ingress.before_publish", "ingress", lambda r: before(Publisher, "publish", r, _to("fetch."))),
    Point("ingress.after_confirm", "ingress", lambda r: after(Publisher, "publish", r, _to("fetch."))),
    Point("provider.code_redeemed", "ingress", lambda r: after(OAuthStore, "redeem", r, _gave_something)),
    Point("provider.rotated", "ingress", lambda r: after(OAuthStore, "rotate", r, _gave_something)),
    Point("fetch.before_mark_commits", "fetch", lambda r: before_commit(TargetStore, "mark", r)),
    Point("fetch.marked", "fetch", lambda r: after(TargetStore, "mark", r)),
    Point("fetch.claimed", "fetch", lambda r: after(TargetStore, "claim", r, _gave_claims)),
    Point("fetch.after_page_1", "fetch", lambda r: before(SyncarooApi, "get", r, _page_of_many)),
    Point("fetch.published", "fetch", lambda r: after(Publisher, "publish", r, _to("reconcile."))),
    Point("park.published", "fetch", lambda r: after(Publisher, "publish", r, _to("dead.fetch"))),
    Point("reconcile.in_transaction", "reconcile", lambda r: before_commit(ListingStore, "apply", r)),
    Point("reconcile.committed", "reconcile", lambda r: after(ListingStore, "apply", r, _gave_something)),
    Point("retry.copied", "reconcile", _copy_of_a_retry),
    Point("relay.read", "relay", lambda r: after(EventStore, "pending", r, _gave_something)),
    Point("relay.published", "relay", lambda r: before(EventStore, "published", r)),
    Point("refresh.intent", "token", lambda r: after(GrantStore, "claim_refresh", r, _gave_something)),
    Point("refresh.sent", "token", _request_under_way),
    Point("refresh.answered", "token", lambda r: after(TokenClient, "refresh", r)),
    Point("refresh.committed", "token", lambda r: after(GrantStore, "keep", r, _gave_something)),
    Point("callback.exchanged", "token", lambda r: after(TokenClient, "exchange", r)),
]

POINTS = {point.name: point for point in _TABLE}
