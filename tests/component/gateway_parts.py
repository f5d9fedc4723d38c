"""The provider and the operator's API in a small application, a browser for its pages, a broker that can be away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from argon2 import PasswordHasher
from cryptography.fernet import Fernet
from sqlalchemy import select, update

from common.access_tokens import AccessTokens
from common.broker.outgoing import Outgoing, Unroutable
from common.errors import BrokerUnavailable
from common.settings import AdminSettings, KeySettings, PlatformSettings, SiteSettings
from common.store.engine import Store
from ingress.account.handler import AccountHandler
from ingress.admin.handler import AdminHandler
from ingress.oauth.handler import OAuthHandler
from ingress.oidc.provider import IdentityProvider
from ingress.pages.render import setup_pages
from ingress.passwords import Passwords
from ingress.platform.client import PlatformInventory
from ingress.problems import problem_middleware
from schemas.tables import table_of
from tests.guide import transcript

CLIENT_ID = "xyz1243"
OLD_SECRET, NEW_SECRET = "the-old-secret", "the-new-secret"
REDIRECT = "https://app.syncaroo.com/connection"
OTHER_REDIRECT = "https://app.syncaroo.com/other?kept=1"
ADMIN = {"Authorization": "Bearer operators-token"}
LOCATIONS: dict[str, Any] = transcript("check-answer").json["locations"]
AUTHORIZE = "/api/oauth/authorize"
TOKEN = "/api/oauth/token"
KEYS = KeySettings(secret_keys=Fernet.generate_key().decode())  # type: ignore[arg-type]  # text, as in the environment


@dataclass
class Broker:
    """Keeps what was published; refuses while it is away."""

    ready: bool = True
    published: list[Outgoing] = field(default_factory=list)
    without: str = " "
    """What routing keys begin with that no queue takes."""

    async def publish(self, message: Outgoing) -> None:
        assert message.routing_key
        assert message.headers["schema"]
        if not self.ready:
            raise BrokerUnavailable("broker: away")
        if message.routing_key.startswith(self.without):
            raise Unroutable(f"broker: no queue for {message.routing_key}")
        self.published.append(message)


@dataclass
class Clock:
    """One that stands still until it is moved."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Form:
    """The first form of a page: fields by name with their values, and the kinds of the inputs that one sees."""

    fields: dict[str, str] = field(default_factory=dict)
    visible: list[str] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            assert given.get("method") == "post"
            self.found.append(Form())
            self.inside = True
        if self.inside and tag == "input":
            self.found[-1].fields[given["name"] or ""] = given.get("value") or ""
            if given.get("type") != "hidden":
                self.found[-1].visible.append(given.get("type") or "text")
        if self.inside and tag == "button" and given.get("name") == "decision":
            self.found[-1].decisions.append(given["value"] or "")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "form"


def all_forms(html: str) -> list[Form]:
    """Every form of a page."""
    parser = _Forms()
    parser.feed(html)
    return parser.found


def first_form(html: str) -> Form:
    """What a page is about."""
    return all_forms(html)[0]


def query_of(location: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(location).query, keep_blank_values=True))


Http = TestClient[web.Request, web.Application]


@dataclass
class Visitor:
    """What a person, an operator or Syncaroo does with a gateway, in this process or in another; and its store."""

    http: Http
    store: Store

    async def admin(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """An operator's call: status, and the JSON that came back (None without a body)."""
        sent = {} if body is None else {"json": body}
        async with self.http.request(method, f"/admin/v1/{path}", headers=ADMIN, **sent) as answer:
            return answer.status, (await answer.json(content_type=None)) if await answer.read() else None

    async def add_user(self, user_id: str = "1", login: str = "ada", *, locations: Any = None) -> None:
        """A user of the platform, with the password `<login>-password`."""
        body = {"userId": user_id, "login": login, "password": f"{login}-password"}
        assert (await self.admin("PUT", f"users/{user_id}", body))[0] == 201
        if locations is not None:
            assert (await self.admin("PUT", f"users/{user_id}/locations", locations))[0] == 200

    async def submit(self, address: str, **fields: str) -> ClientResponse:
        """Open a page, fill in its first form, send it."""
        page = await self.http.get(address)
        form = first_form(await page.text())
        return await self.http.post(address, data=form.fields | fields, allow_redirects=False)

    async def log_in(self, address: str, login: str = "ada", password: str | None = None) -> ClientResponse:
        return await self.submit(address, login=login, password=password or f"{login}-password")

    async def code(self, connection_id: int = 99, login: str = "ada", **query: str) -> str:
        """The whole way of a user to a code."""
        address = authorize(connection_id, **query)
        self.http.session.cookie_jar.clear()
        assert (await self.log_in(address, login)).status == 303
        answer = await self.submit(address, decision="allow")
        assert answer.status == 303, await answer.text()
        return query_of(answer.headers["Location"])["code"]

    async def exchange(self, **form: str) -> tuple[int, dict[str, str]]:
        """A call of the token endpoint, with our client unless the form says otherwise."""
        form = {"clientId": CLIENT_ID, "clientSecret": OLD_SECRET} | form
        async with self.http.post(TOKEN, data=form) as answer:
            return answer.status, await answer.json()

    async def redeem(self, code: str, **more: str) -> tuple[int, dict[str, str]]:
        return await self.exchange(grantType="authorization_code", code=code, **more)

    async def refresh(self, token: str) -> tuple[int, dict[str, str]]:
        return await self.exchange(grantType="refresh_token", refreshToken=token)

    async def connect(self, connection_id: int = 99, login: str = "ada") -> dict[str, str]:
        """Tokens for a connection."""
        status, pair = await self.redeem(await self.code(connection_id, login))
        assert status == 200, pair
        return pair

    async def check(self, token: str, connection_id: int | str = 99) -> ClientResponse:
        headers = {"Authorization": f"Bearer {token}"}
        return await self.http.get(f"/api/check_connection?connectionId={connection_id}", headers=headers)

    async def rows(self, model: Any) -> list[Any]:
        async with self.store.reading() as transaction:
            return list(await transaction.rows(select(table_of(model))))

    async def change(self, model: Any, **values: Any) -> None:
        """Set columns of every row: what only time would do."""
        async with self.store.transaction() as transaction:
            await transaction.execute(update(table_of(model)).values(values))


@dataclass
class Gateway(Visitor):
    """The application under test."""

    broker: Broker
    tokens: AccessTokens
    clock: Clock
    """By which wrong passwords and secrets are counted."""


def authorize(connection_id: int | str = 99, **more: str) -> str:
    """The address to which Syncaroo sends a user."""
    query = {
        "connectionId": str(connection_id),
        "clientId": CLIENT_ID,
        "redirectUri": REDIRECT,
        "responseType": "code",
    }
    return f"{AUTHORIZE}?{urlencode(query | more)}"


@asynccontextmanager
async def running(
    database_url: str, identities: IdentityProvider | None = None, inventory: PlatformInventory | None = None
) -> AsyncIterator[Gateway]:
    """The application on a port of its own; users log in at `identities`, or with local accounts."""
    site = SiteSettings(site_uri="http://localhost:8080")
    platform = PlatformSettings(
        platform_client_id=CLIENT_ID,
        platform_client_secret=f"{NEW_SECRET},{OLD_SECRET}",  # type: ignore[arg-type]  # text, as in the environment
        platform_redirect_uris=f"{REDIRECT},{OTHER_REDIRECT}",  # type: ignore[arg-type]  # text, as in the environment
    )
    operators = AdminSettings(admin_token="ann:anns-token,operators-token")  # type: ignore[arg-type]  # text, as in the environment
    store, broker = Store(database_url), Broker()
    passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))  # what argon2 costs is not tested
    tokens = AccessTokens(KEYS.clear(), platform.access_token_seconds)
    app = web.Application(middlewares=[problem_middleware])
    setup_pages(app, site, KEYS)
    clock = Clock()
    oauth = OAuthHandler(store, platform, KEYS, tokens, passwords, identities, inventory, clock=clock)
    app.add_routes(oauth.routes(site.prefix))
    app.add_routes(AccountHandler(store, oauth.visitors, oauth.sign_in).routes())
    app.add_routes(AdminHandler(store, broker, operators, passwords).routes())
    try:
        async with TestClient(TestServer(app)) as client:
            yield Gateway(client, store, broker, tokens, clock)
    finally:
        await store.close()
