"""A real OpenID provider (oidc-provider, certified) as the platform's own: a person walks through the ingress."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from ops.children import free_port
from ops.demo.browser import Browser, Page
from ops.stack import Stack, environment
from tests.acceptance.world import answers
from tests.fixtures.database import migrate
from tests.fixtures.node import PINNED, Node
from tests.waiting import until

NOWHERE = "amqp://guest:guest@127.0.0.1:1/none"
SECRETS = {"OIDC_CLIENT_ID": "the gateway", "OIDC_CLIENT_SECRET": "a secret: + % of the test"}


@asynccontextmanager
async def syncaroo() -> AsyncIterator[str]:
    """Where users come back to."""
    app = web.Application()
    app.router.add_get("/connection", _back)
    async with TestServer(app) as server:
        yield str(server.make_url("/connection"))


async def _back(request: web.Request) -> web.Response:
    return web.Response(text="<h1>Back</h1>", content_type="text/html")


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """An ingress whose users log in at a provider that is not there yet. No broker: pages need none."""
    database_url = f"sqlite+aiosqlite:///{tmp_path / 'gateway.db'}"
    migrate(database_url)
    issuer = f"http://127.0.0.1:{free_port()}"
    async with syncaroo() as back:
        own = {"OIDC_ISSUER": issuer, **SECRETS, "PLATFORM_REDIRECT_URIS": back}
        async with Stack(environment(amqp_url=NOWHERE, database_url=database_url, settings=own), tmp_path) as stack:
            await stack.start("ingress")
            await until(lambda: answers(stack.url, "/healthz"), 60)
            yield stack


@asynccontextmanager
async def identity_provider(node: Node, stack: Stack) -> AsyncIterator[None]:
    own = stack.environment
    given = {
        "PORT": own["OIDC_ISSUER"].rpartition(":")[2],
        "CLIENT_ID": own["OIDC_CLIENT_ID"],
        "CLIENT_SECRET": own["OIDC_CLIENT_SECRET"],
        "REDIRECT_URI": f"{own['SITE_URI']}/login/callback",
    }
    async with node.start(PINNED / "identity_provider.mjs", environment=given) as running:
        await until(lambda: _is_listening(running.ended, running.lines), 60)
        yield


def _is_listening(ended: bool, lines: list[str]) -> bool:
    if ended:
        raise RuntimeError("\n".join(lines))
    return "listening" in lines


def authorize(stack: Stack) -> str:
    own = stack.environment
    query = {"connectionId": "99", "responseType": "code", "state": "s"}
    query |= {"clientId": own["PLATFORM_CLIENT_ID"], "redirectUri": own["PLATFORM_REDIRECT_URIS"]}
    return f"{stack.url}/api/oauth/authorize?{urlencode(query)}"


async def log_in(browser: Browser, stack: Stack, login: str) -> Page:
    """Through the provider's own login and consent → our consent page."""
    page = await browser.open(authorize(stack))
    assert page.url.startswith(stack.environment["OIDC_ISSUER"]), page
    page = await browser.submit(page, text=login, password="any")
    return await browser.submit(page)


async def test_a_person_logs_in_at_the_provider_and_syncaroo_gets_tokens(stack: Stack, node: Node) -> None:
    """Once there is a provider, and once they have thought better of declining there."""
    address = URL(authorize(stack))
    async with Browser() as browser:
        assert (await browser.open(str(address))).status == 503
        async with identity_provider(node, stack):
            await declines(browser, stack)
            consent = await log_in(browser, stack, "ada@platform.example")
            assert URL(consent.url) == address
            assert "ada@platform.example" in consent.html
            back = await browser.submit(consent, button=("decision", "allow"))
            pair = await exchange(stack, back)
            assert await whose(stack, pair["accessToken"]) == "ada@platform.example"
            assert URL((await browser.open(str(address))).url) == address, "still logged in"
    for secret in (stack.environment["OIDC_CLIENT_SECRET"], pair["accessToken"]):
        assert secret not in stack.logs("ingress-1")


async def declines(browser: Browser, stack: Stack) -> None:
    page = await browser.open(authorize(stack))
    page = await browser.open(f"{page.url}/abort")
    assert (page.status, page.heading) == (403, "Not signed in")
    assert "access_denied: End-User aborted interaction" in page.html


async def exchange(stack: Stack, back: Page) -> dict[str, str]:
    """What Syncaroo does with the address that the user came back with."""
    own = stack.environment
    query = URL(back.url).query
    form = {"clientId": own["PLATFORM_CLIENT_ID"], "clientSecret": own["PLATFORM_CLIENT_SECRET"]}
    form |= {"grantType": "authorization_code", "code": query["code"]}
    assert (back.heading, query["state"], query["connectionId"]) == ("Back", "s", "99")
    async with aiohttp.ClientSession() as session, session.post(f"{stack.url}/api/oauth/token", data=form) as answer:
        assert answer.status == 200
        pair: dict[str, str] = await answer.json()
        return pair


async def whose(stack: Stack, token: str) -> str:
    headers = {"Authorization": f"Bearer {token}"}
    address = f"{stack.url}/check_connection?connectionId=99"
    async with aiohttp.ClientSession() as session, session.get(address, headers=headers) as answer:
        return str((await answer.json())["userId"])
