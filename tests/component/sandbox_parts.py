"""A stand-in on its own port, a hand-written platform for it to talk to, and the steps that tests of it take."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
from aiohttp import web
from pytest_aiohttp import AiohttpServer
from yarl import URL

from ops.children import free_port
from sandbox import SandboxConfig, create_app
from sandbox.driver import SandboxDriver
from tests.guide import transcript

JSON = {"Content-Type": "application/json; charset=UTF-8"}


@dataclass
class Platform:
    """Answers as the guide prints, keeps what it was sent; `expires` and the statuses can be set to misbehave."""

    url: str = ""
    expires: str = "2099-06-15T13:45:30"
    webhook_status: int = 200
    check: dict[str, Any] = field(default_factory=lambda: transcript("check-answer").json)
    tokens: list[dict[str, str]] = field(default_factory=list)
    token_headers: list[dict[str, str]] = field(default_factory=list)
    checks: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    webhooks: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    order: list[str] = field(default_factory=list)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/api/oauth/token", self._token)
        app.router.add_get("/api/check_connection/", self._check)
        app.router.add_post("/api/update/", self._webhook)
        return app

    async def _token(self, request: web.Request) -> web.Response:
        self.order.append("token")
        self.token_headers.append(dict(request.headers))
        self.tokens.append(dict(parse_qsl(await request.text(), keep_blank_values=True)))
        number = len(self.tokens)
        answer = {"accessToken": f"access-{number}", "expires": self.expires, "refreshToken": f"refresh-{number}"}
        return web.json_response(answer)

    async def _check(self, request: web.Request) -> web.Response:
        self.order.append("check")
        self.checks.append((request.headers.get("Authorization", ""), dict(request.query)))
        return web.Response(body=json.dumps(self.check), headers=JSON)

    async def _webhook(self, request: web.Request) -> web.Response:
        self.order.append("webhook")
        self.webhooks.append((dict(request.headers), json.loads(await request.read())))
        answer = {"status": "accepted", "deliveryId": f"d{len(self.webhooks)}"}
        return web.json_response(answer, status=self.webhook_status)


@dataclass
class Stand:
    """A running stand-in with its driver, a plain HTTP client that follows nothing, and the platform."""

    config: SandboxConfig
    http: aiohttp.ClientSession
    driver: SandboxDriver
    platform: Platform

    @property
    def url(self) -> str:
        return self.config.url

    async def code(self) -> str:
        """An authorization code, as the admin's browser brings it to the platform."""
        query = authorize_query(self.config)
        async with self.http.get(f"{self.url}/api/authorize", params=query, allow_redirects=False) as answer:
            return dict(parse_qsl(urlsplit(answer.headers["Location"]).query))["code"]

    async def post_token(self, form: dict[str, str], **more: Any) -> tuple[int, dict[str, Any]]:
        async with self.http.post(f"{self.url}/api/token", data=form, **more) as answer:
            return answer.status, await answer.json()

    async def exchange(self) -> dict[str, Any]:
        """A token pair, by the guide's two steps."""
        status, pair = await self.post_token(exchange_form(self.config, await self.code()))
        assert status == 200, pair
        return pair

    async def get(self, url: str, token: str, **headers: str) -> tuple[int, Any]:
        """A GET as the guide prints it → status, JSON."""
        sent = {"Authorization": f"Bearer {token}", "Accept": "application/json"} | headers
        async with self.http.get(self._encoded(url), headers=sent, allow_redirects=False) as answer:
            return answer.status, await answer.json(content_type=None)

    async def walk(self, url: str | None, token: str) -> list[Any]:
        """All items of a list, following `pages.next`."""
        found: list[Any] = []
        while url:
            status, page = await self.get(url, token)
            assert status == 200, page
            found += page["data"]
            url = page["pages"]["next"]
        return found

    async def confirmed(self, connection_id: int = 99) -> None:
        """A user's connection through consent, exchange, check_connection and the first burst."""
        sent = await self.driver.connect(connection_id)
        back = dict(parse_qsl(urlsplit(sent).query))["redirectUri"]
        async with self.http.get(back, params={"connectionId": str(connection_id), "code": "one-time"}) as answer:
            assert answer.status == 200, await answer.text()
        await self.driver.quiet()

    def _encoded(self, url: str) -> URL:
        return URL(url, encoded=True)


def authorize_query(config: SandboxConfig) -> dict[str, str]:
    """The guide's GET variables, with this stand-in's values."""
    printed = transcript("syncaroo-authorize-request").query
    return printed | {"clientId": config.client_id, "redirectUri": config.allowed_confirm_uris[0]}


def exchange_form(config: SandboxConfig, code: str) -> dict[str, str]:
    """The guide's exchange, with this stand-in's values."""
    own = {"clientId": config.client_id, "clientSecret": config.client_secret, "code": code}
    return transcript("syncaroo-token-request").form | own | {"redirectUri": config.allowed_confirm_uris[0]}


def refresh_form(config: SandboxConfig, refresh_token: str) -> dict[str, str]:
    """The guide's refresh, with this stand-in's values."""
    own = {"clientId": config.client_id, "clientSecret": config.client_secret, "refreshToken": refresh_token}
    return transcript("syncaroo-refresh-request").form | own


Start = Callable[..., Awaitable[Stand]]


@asynccontextmanager
async def stands(serve: AiohttpServer) -> AsyncIterator[Start]:
    """Gives a function that starts a stand-in and its platform; the keywords are SandboxConfig's."""
    opened: list[Stand] = []

    async def starting(**chosen: Any) -> Stand:
        platform = Platform()
        platform.url = str((await serve(platform.app())).make_url("")).rstrip("/")
        given: dict[str, Any] = {"port": free_port(), "platform_url": platform.url, "auto_approve": True} | chosen
        config = SandboxConfig(**given)
        await serve(create_app(config), port=config.port)
        opened.append(Stand(config, aiohttp.ClientSession(), SandboxDriver(config.url), platform))
        return opened[-1]

    yield starting
    for stand in opened:
        await stand.http.close()
        await stand.driver.close()
