"""The console's addresses, composed, each for operators who are signed in alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from aiohttp import web
from aiohttp_session import get_session

from common.clock import monotonic_seconds
from common.errors import StoreUnavailable
from common.store.engine import Store
from ingress.admin import replaying
from ingress.admin.replaying import Replaying
from ingress.admin.store.connections import ConnectionStore
from ingress.admin.store.dead_letters import DeadLetterStore
from ingress.admin.store.held import HeldStore
from ingress.admin.store.listings import ListingStore
from ingress.admin.store.targets import TargetStore
from ingress.connect.login import AdminLogin
from ingress.connect.sign_in import OperatorSignIn
from ingress.console.connections import HELD, Connections
from ingress.console.dead_letters import PATH as DEAD_LETTERS
from ingress.console.dead_letters import DeadLetters
from ingress.console.feed import Broker, Feed, Sources, Standing
from ingress.console.listings import Listings
from ingress.console.live import Live, choice_of, owner_of
from ingress.console.rules import ROOT, place_of, told
from ingress.console.stages import grant_of, stages_of
from ingress.console.store import EventLogStore, PeopleStore
from ingress.console.visit import SHARED, Act, Door, Visit
from ingress.flow.store import FlowStore
from ingress.pages.forms import read_form
from ingress.pages.render import error_page, in_session, page, redirect
from ingress.pages.session import check_csrf

SHOWN = 50
"""Events of the log that the page begins with."""


class Publisher(Broker, replaying.Broker, Protocol):
    """What is needed of the publisher."""


class ConsoleHandler:
    """Everything under `/console`. Needs an application that `setup_pages` was called for."""

    def __init__(
        self,
        store: Store,
        broker: Publisher,
        events_broker: Publisher,
        login: AdminLogin,
        webhooks: Callable[[], float],
        *,
        connect_url: str,
    ) -> None:
        """`webhooks` counts those that this process has taken; `connect_url` is where an operator authorises us."""
        self._sign_in = OperatorSignIn(login, "console/login.html")
        self._log = EventLogStore(store)
        flow = FlowStore(store)
        self._feed = Feed(Sources(self._log, flow, PeopleStore(store), broker, webhooks, monotonic_seconds))
        self._shared = {**SHARED, "connect_url": connect_url, "stages_of": stages_of, "grant_of": grant_of}
        self._live = Live(self._feed, self._log, self._sign_in, self._shared)
        letters = DeadLetterStore(store)
        self._dead_letters = DeadLetters(letters, flow, Replaying(letters, broker, events_broker))
        self._connections = Connections(ConnectionStore(store), HeldStore(store))
        self._listings = Listings(ListingStore(store), TargetStore(store))

    def routes(self) -> list[web.RouteDef]:
        """The routes, without trailing slashes."""
        letters, connections, listings = self._dead_letters, self._connections, self._listings
        return [
            web.post(ROOT, self.log_in),
            web.get(f"{ROOT}/events", partial(in_session, handler=self._live.stream), allow_head=False),
            self._get(ROOT, self.show),
            self._get(DEAD_LETTERS, letters.list),
            self._get(f"{DEAD_LETTERS}/{{id}}", letters.show),
            self._post(f"{ROOT}/replay", letters.replay),
            self._post(f"{ROOT}/drop", letters.drop),
            self._get(HELD, connections.list_held),
            self._post(HELD, connections.decide),
            self._post(f"{ROOT}/resync", connections.resync),
            self._get(f"{ROOT}/listings", listings.search),
            self._get(f"{ROOT}/listings/{{listingId}}", listings.show),
            web.post(f"{ROOT}/sign-out", self.sign_out),
        ]

    def _get(self, path: str, act: Act) -> web.RouteDef:
        return web.get(path, Door(self._sign_in, act).get, allow_head=False)

    def _post(self, path: str, act: Act) -> web.RouteDef:
        return web.post(path, Door(self._sign_in, act).post)

    async def close(self, _app: web.Application) -> None:
        """For `on_shutdown`: streams end before anybody waits for requests in hand."""
        await self._feed.close()

    @page
    async def log_in(self, request: web.Request) -> web.Response:
        """POST: a right token leads to where one was going."""
        form = await read_form(request)
        return await self._sign_in.answer(request, form, place_of(form.get("then", ROOT)))

    @page
    async def sign_out(self, request: web.Request) -> web.Response:
        """POST: the end of the session, and of what it has open in this process."""
        session = await get_session(request)
        if not check_csrf(session, await read_form(request)):
            return error_page(request, 403, "This page was too old, or was sent from elsewhere. Nothing was done.")
        self._feed.end_of(owner_of(session))
        session.invalidate()
        return redirect(ROOT)

    async def show(self, visit: Visit) -> web.StreamResponse:
        """GET: the page that one leaves open; it is shown when the store is away, too."""
        query = visit.query
        choice = choice_of(query)
        standing = await self._feed.standing()
        context = {**self._shared, "standing": standing, "choice": choice, **await self._begun(visit, standing)}
        return visit.page("front.html", context, status=200 if standing.flow else 503)

    async def _begun(self, visit: Visit, standing: Standing) -> dict[str, object]:
        """The latest events, and from where on the page is told what comes."""
        if standing.flow is None:
            return {"events": [], "after": 0}
        try:
            after = await self._log.settled()
            return {"events": list(map(told, await self._log.latest(choice_of(visit.query), SHOWN))), "after": after}
        except StoreUnavailable:
            return {"events": [], "after": 0}
