"""The ingress' composition root: settings in, applications and the services behind them out. Nothing connects here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry

from common.access_tokens import AccessTokens
from common.broker.outgoing import Outgoing
from common.broker.publisher import PUBLISH_SECONDS
from common.clock import monotonic_seconds
from common.identity import plural
from common.metrics import process_registry
from common.settings import (
    AdminSettings,
    BrokerSettings,
    ClientSettings,
    EventBrokerSettings,
    InventorySettings,
    KeySettings,
    ListenSettings,
    OidcSettings,
    PlatformSettings,
    SiteSettings,
    StoreSettings,
    SyncarooSettings,
    WebhookSettings,
)
from common.store.engine import Store
from common.store.schema import facts_of
from common.straight import STRAIGHT
from common.urls import AllowedHosts
from ingress.account.handler import AccountHandler
from ingress.admin.handler import AdminHandler
from ingress.connect.handler import ConnectHandler
from ingress.connect.login import AdminLogin
from ingress.console.handler import ConsoleHandler
from ingress.documents.handler import DocumentsHandler
from ingress.documents.place import place_of
from ingress.flow.metrics import FlowMetrics
from ingress.flow.store import FlowStore
from ingress.forwarded import forwarded_middleware
from ingress.health.handler import HealthHandler
from ingress.health.readiness import Readiness
from ingress.health.store_watch import StoreWatch
from ingress.limits import MAX_BODY, drop_server_header, limits_middleware
from ingress.oauth.handler import OAuthHandler
from ingress.oauth.revocations import Revocations
from ingress.oauth.throttle import Throttle
from ingress.oidc.provider import identity_provider
from ingress.outages.heartbeat import Heartbeat
from ingress.outages.refused import Refused
from ingress.outages.store import OutageStore
from ingress.pages.render import setup_pages
from ingress.passwords import Passwords
from ingress.platform.client import platform_inventory
from ingress.problems import problem_middleware
from ingress.routing import TidyPaths
from ingress.webhook.deposit import Deposit
from ingress.webhook.handler import WebhookHandler
from ingress.webhook.hashes import HashCheck, keys_of
from ingress.webhook.metrics import WebhookMetrics
from ingress.webhook.rules import Terms
from ingress.webhook.signature import parse_recipe


@dataclass(frozen=True)
class Settings:
    """The sections that the ingress reads, in the order of `SECTIONS`."""

    broker: BrokerSettings
    events: EventBrokerSettings
    store: StoreSettings
    keys: KeySettings
    site: SiteSettings
    listen: ListenSettings
    platform: PlatformSettings
    oidc: OidcSettings
    webhook: WebhookSettings
    syncaroo: SyncarooSettings
    client: ClientSettings
    admin: AdminSettings
    inventory: InventorySettings


SECTIONS = (
    BrokerSettings,
    EventBrokerSettings,
    StoreSettings,
    KeySettings,
    SiteSettings,
    ListenSettings,
    PlatformSettings,
    OidcSettings,
    WebhookSettings,
    SyncarooSettings,
    ClientSettings,
    AdminSettings,
    InventorySettings,
)


class Broker(Protocol):
    """What the ingress needs of `common.broker.publisher.Publisher`."""

    @property
    def ready(self) -> bool:
        """Whether a publish has a chance."""

    async def publish(self, message: Outgoing, *, seconds: float = PUBLISH_SECONDS) -> None:
        """Return when the broker has it; raise BrokerUnavailable otherwise."""

    async def check(self, queues: Sequence[str], *, seconds: float = 2.0) -> None:
        """Return when the broker has the queues; raise BrokerUnavailable otherwise."""

    async def depths(self, queues: Sequence[str], *, seconds: float = 2.0) -> dict[str, int]:
        """How many messages are ready in each; raise BrokerUnavailable otherwise."""


class Parts:
    """What handlers share and what runs behind them; made once per process."""

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        events_broker: Broker | None = None,
        *,
        registry: CollectorRegistry | None = None,
    ) -> None:
        """`events_broker`: where events are, if that is another one than `broker`."""
        self.broker = broker
        self.events_broker = events_broker or broker
        self.store = Store(settings.store.database_url.get_secret_value())
        self.registry = registry or process_registry()
        self.metrics = WebhookMetrics(self.registry)
        self.tokens = AccessTokens(settings.keys.clear(), settings.platform.access_token_seconds)
        self.passwords = Passwords()
        self.operators = AdminLogin(settings.admin, Throttle(monotonic_seconds))
        self.revocations = Revocations(self.store, settings.platform.access_token_seconds)
        self.hashes = _hash_check(settings)
        self.store_watch = StoreWatch(self.store, facts_of(settings.site, settings.syncaroo))
        outages = OutageStore(self.store)
        self.refused = Refused(broker, outages, self.store_watch.is_up, self.metrics.refused_connections)
        self.heartbeat = Heartbeat(outages, self.store_watch.is_up, monotonic_seconds)
        self.readiness = Readiness(broker, monotonic_seconds)
        self.flow = FlowMetrics(FlowStore(self.store), broker, monotonic_seconds)
        self.registry.register(self.flow)


def create_app(settings: Settings, parts: Parts) -> web.Application:
    """What `HTTP_PORT` serves: everything, or everything but the operator's part when there is an `OPS_PORT`."""
    app = _application(settings)
    setup_pages(app, settings.site, settings.keys)
    identities = identity_provider(settings.oidc, settings.site)
    inventory = platform_inventory(settings.inventory)
    oauth = OAuthHandler(
        parts.store, settings.platform, settings.keys, parts.tokens, parts.passwords, identities, inventory
    )
    connect = ConnectHandler(
        parts.store, parts.broker, settings.site, settings.keys, settings.syncaroo, settings.client, parts.operators
    )
    app.add_routes(oauth.routes(settings.site.prefix))
    app.add_routes(AccountHandler(parts.store, oauth.visitors, oauth.sign_in).routes())
    app.add_routes(connect.routes())
    webhooks = _webhook_handler(settings, parts)
    app.add_routes(webhooks.routes())
    if settings.webhook.webhook_success_status != 204:  # which has no body
        app[STRAIGHT] = {route.path + end: _guarded(route.handler) for route in webhooks.routes() for end in ("", "/")}
    app.add_routes(DocumentsHandler(place_of(settings.site, settings.webhook)).routes())
    app.add_routes(_health_handler(parts).routes())
    if settings.listen.ops_port is None:
        _add_ops_routes(app, settings, parts)
    app.router.register_resource(TidyPaths(app.router))
    return app


def create_ops_app(settings: Settings, parts: Parts) -> web.Application:
    """What `OPS_PORT` serves: the operator's part alone."""
    app = _application(settings)
    setup_pages(app, settings.site, settings.keys, is_site=False)
    app.add_routes(_health_handler(parts).routes())
    _add_ops_routes(app, settings, parts)
    app.router.register_resource(TidyPaths(app.router))
    return app


def _application(settings: Settings) -> web.Application:
    forwarded = forwarded_middleware(settings.listen.trusted_proxies)
    app = web.Application(middlewares=[forwarded, problem_middleware, limits_middleware], client_max_size=MAX_BODY)
    app.on_response_prepare.append(drop_server_header)
    return app


def _guarded(handler: Handler) -> Handler:
    """With those of the middlewares around it that webhooks need; whom they come from is nothing to them."""
    return partial(problem_middleware, handler=partial(limits_middleware, handler=handler))


def _add_ops_routes(app: web.Application, settings: Settings, parts: Parts) -> None:
    admin = AdminHandler(
        parts.store,
        parts.broker,
        settings.admin,
        parts.passwords,
        parts.hashes.unmatched,
        events_broker=parts.events_broker,
    )
    app.add_routes(admin.routes())
    console = ConsoleHandler(
        parts.store,
        parts.broker,
        parts.events_broker,
        parts.operators,
        parts.metrics.came,
        connect_url=f"{settings.site.site_uri}/connect",
    )
    app.add_routes(console.routes())
    app.on_shutdown.append(console.close)
    app.add_routes(_health_handler(parts).metrics_routes())


def _health_handler(parts: Parts) -> HealthHandler:
    return HealthHandler(parts.readiness, parts.store_watch, parts.registry, parts.flow.look)


def _webhook_handler(settings: Settings, parts: Parts) -> WebhookHandler:
    allowed = AllowedHosts(settings.syncaroo.syncaroo_api_hosts, settings.syncaroo.syncaroo_allow_http)
    attributes = frozenset(name for one in settings.webhook.sync_attributes if (name := plural(one)))
    return WebhookHandler(
        prefix=settings.site.prefix,
        success_status=settings.webhook.webhook_success_status,
        tokens=parts.tokens,
        is_revoked=parts.revocations.is_revoked,
        terms=Terms(allowed, attributes),
        hashes=parts.hashes,
        deposit=Deposit(parts.broker, parts.refused, parts.metrics),
        metrics=parts.metrics,
    )


def _hash_check(settings: Settings) -> HashCheck:
    recipe = parse_recipe(settings.webhook.webhook_hash_recipe)
    return HashCheck(settings.webhook.webhook_hash_mode, recipe, keys_of(settings.platform, settings.webhook))
