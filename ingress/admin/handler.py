"""The operator's addresses, composed, each behind the operator's token."""

from __future__ import annotations

import base64
from collections.abc import Collection

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from common.crypto import any_secret
from common.settings import AdminSettings
from common.store.engine import Store
from common.store.erasing import ErasureStore
from ingress.admin.answers import answer, page_of
from ingress.admin.connections import ConnectionEndpoints
from ingress.admin.dead_letters import DeadLetterEndpoints
from ingress.admin.held import HeldEndpoints
from ingress.admin.listings import ListingEndpoints
from ingress.admin.replaying import Broker
from ingress.admin.store.connections import ConnectionStore
from ingress.admin.store.dead_letters import DeadLetterStore
from ingress.admin.store.held import HeldStore
from ingress.admin.store.listings import ListingStore
from ingress.admin.store.status import Counts, StatusStore
from ingress.admin.store.targets import TargetStore
from ingress.admin.store.users import UserStore
from ingress.admin.targets import TargetEndpoints
from ingress.admin.users import UserEndpoints
from ingress.bearer import bearer_token, unauthorized
from ingress.flow.flow import Flow
from ingress.flow.store import FlowStore
from ingress.passwords import Passwords
from ingress.platform.store import InventoryStore

ROOT = "/admin/v1"


class UnmatchedWebhook(msgspec.Struct, frozen=True):
    """The raw body of a webhook whose hash did not match, in base64."""

    body: str


class Status(Counts, frozen=True, kw_only=True):
    """How things stand: the grant, how much there is of everything, whether the broker answers, and what flows."""

    broker: bool
    flow: Flow


class AdminHandler:
    """Everything under `/admin/v1`."""

    def __init__(
        self,
        store: Store,
        broker: Broker,
        settings: AdminSettings,
        passwords: Passwords,
        unmatched_webhooks: Collection[bytes] = (),
        *,
        events_broker: Broker | None = None,
    ) -> None:
        """`unmatched_webhooks`: the last raw bodies whose hash did not match, as this process remembers them.

        `events_broker`: where events are, if that is another one than `broker`.
        """
        self._status_store = StatusStore(store)
        self._flow_store = FlowStore(store)
        self._broker = broker
        self._tokens = settings.tokens()
        self._users = UserEndpoints(UserStore(store), InventoryStore(store), ErasureStore(store), passwords)
        connections = ConnectionStore(store)
        self._connections = ConnectionEndpoints(connections)
        self._held = HeldEndpoints(HeldStore(store), connections)
        self._listings = ListingEndpoints(ListingStore(store))
        self._targets = TargetEndpoints(TargetStore(store))
        self._dead_letters = DeadLetterEndpoints(DeadLetterStore(store), broker, events_broker or broker)
        self._unmatched_webhooks = unmatched_webhooks

    def routes(self) -> list[web.RouteDef]:
        """The routes, without trailing slashes."""
        return [web.route(method, f"{ROOT}/{path}", self._guarded(act)) for method, path, act in self._table()]

    def _table(self) -> list[tuple[str, str, Handler]]:
        users, connections, listings, dead = self._users, self._connections, self._listings, self._dead_letters
        return [
            ("GET", "users", users.list),
            ("PUT", "users/{userId}", users.put),
            ("GET", "users/{userId}", users.get),
            ("DELETE", "users/{userId}", users.delete),
            ("GET", "users/{userId}/locations", users.get_locations),
            ("PUT", "users/{userId}/locations", users.put_locations),
            ("PUT", "users/{userId}/locations/{locationId}", users.put_location),
            ("DELETE", "users/{userId}/locations/{locationId}", users.delete_location),
            ("GET", "connections", connections.list),
            ("GET", "connections/{connectionId}", connections.get),
            ("DELETE", "connections/{connectionId}", connections.delete),
            ("POST", "connections/{connectionId}/resync", connections.resync),
            ("GET", "held", self._held.list),
            ("POST", "connections/{connectionId}/held/approve", self._held.approve),
            ("POST", "connections/{connectionId}/held/discard", self._held.discard),
            ("GET", "listings", listings.list),
            ("GET", "listings/{listingId}", listings.get),
            ("GET", "listings/{listingId}/history", listings.history),
            ("GET", "targets", self._targets.list),
            ("GET", "attempts", self._targets.attempts),
            ("GET", "dead-letters", dead.list),
            ("GET", "dead-letters/{id}", dead.get),
            ("POST", "dead-letters/{id}/replay", dead.replay),
            ("DELETE", "dead-letters/{id}", dead.delete),
            ("GET", "unmatched-webhooks", self._unmatched),
            ("GET", "status", self._status),
        ]

    def _guarded(self, act: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if not any_secret(bearer_token(request) or "", self._tokens):
                return unauthorized("Send one of the operators' tokens as Authorization: Bearer.")
            return await act(request)

        return guarded

    async def _unmatched(self, request: web.Request) -> web.Response:
        items = [UnmatchedWebhook(base64.b64encode(raw).decode()) for raw in self._unmatched_webhooks]
        return page_of(items, None)

    async def _status(self, request: web.Request) -> web.Response:
        counts, flow = await self._status_store.counts(), await self._flow_store.read()
        return answer(Status(**msgspec.structs.asdict(counts), broker=self._broker.ready, flow=flow))
