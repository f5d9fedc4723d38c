"""check_connection asks the platform itself (`INVENTORY_URL`); whatever that does, what is kept stands in."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import hdrs, web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from common.codec import dumps
from common.errors import GatewayError, SettingsError
from common.process import EX_CONFIG
from common.settings import InventorySettings, load
from ingress.limits import MAX_BODY
from ingress.platform import client
from ingress.platform.client import PlatformInventory, platform_inventory
from ops.stack import Stack, environment
from schemas.tables import InventoryRow
from tests.component.gateway_parts import Gateway, authorize, running
from tests.fixtures.database import ON_SQLITE

TOKEN = "token-of-the-inventory"
KEPT = {"1": {"ID": "1", "name": "Kept", "status": "active"}}
LIVE = {"2": {"ID": "2", "name": "Live", "status": "draft", "resources": []}}

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Platform:
    """The platform's own server; `answer` is what it does next."""

    answer: Answer
    seen: list[web.Request] = field(default_factory=list)
    url: str = ""
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        return await self.answer(request)


async def live(request: web.Request) -> web.StreamResponse:
    return web.json_response(LIVE)


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    platform = Platform(live)
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", platform.serve)
    async with TestServer(app) as server:
        platform.url = str(server.make_url("/v1/inventory/")) + "{userId}"
        yield platform
        platform.gone.set()


@pytest.fixture
async def gateway(database_url: str, platform: Platform) -> AsyncIterator[Gateway]:
    """It has more patience than in earnest: a busy machine is no slow platform."""
    async with running(database_url, inventory=PlatformInventory(platform.url, TOKEN, seconds=60)) as gateway:
        yield gateway


async def shown(gateway: Gateway, token: str) -> Any:
    answer = await gateway.check(token)
    assert answer.status == 200
    assert answer.headers[hdrs.CONTENT_TYPE] == "application/json; charset=UTF-8"
    return (await answer.json(content_type=None))["locations"]


async def connected(gateway: Gateway, platform: Platform) -> dict[str, str]:
    """A pair of tokens, while the platform told the consent page nothing; that it was asked then does not count."""
    answer, platform.answer = platform.answer, fails
    pair = await gateway.connect()
    platform.answer = answer
    platform.seen.clear()
    return pair


async def test_the_platform_is_asked_and_its_answer_kept(gateway: Gateway, platform: Platform) -> None:
    await gateway.add_user(locations=KEPT)
    pair = await connected(gateway, platform)
    assert await shown(gateway, pair["accessToken"]) == LIVE
    assert {(asked.method, asked.path, asked.headers[hdrs.AUTHORIZATION]) for asked in platform.seen} == {
        ("GET", "/v1/inventory/1", f"Bearer {TOKEN}")
    }
    platform.answer = fails
    gone = {"1": KEPT["1"] | {"status": "deleted"}}
    assert await shown(gateway, pair["accessToken"]) == LIVE | gone
    platform.answer = live
    before = [tuple(row) for row in await gateway.rows(InventoryRow)]
    assert await shown(gateway, pair["accessToken"]) == LIVE, "as the platform tells it"
    assert [tuple(row) for row in await gateway.rows(InventoryRow)] == before


@ON_SQLITE
async def test_the_consent_page_names_what_the_platform_tells(gateway: Gateway, platform: Platform) -> None:
    """Before anything is kept of a user, too."""
    await gateway.add_user()
    assert (await gateway.log_in(authorize())).status == 303
    text = await (await gateway.http.get(authorize())).text()
    assert "Live" in text
    assert "1 location with 0 resources" in text


async def test_the_users_listings_may_change_from_time_to_time(gateway: Gateway, platform: Platform) -> None:
    await gateway.add_user()
    pair = await connected(gateway, platform)
    assert await shown(gateway, pair["accessToken"]) == LIVE

    async def nothing(request: web.Request) -> web.StreamResponse:
        return web.json_response({})

    platform.answer = nothing
    assert await shown(gateway, pair["accessToken"]) == {}
    platform.answer = fails
    assert await shown(gateway, pair["accessToken"]) == {"2": LIVE["2"] | {"status": "deleted"}}


@ON_SQLITE
async def test_nobody_is_asked_for_a_token_that_is_worth_nothing(gateway: Gateway, platform: Platform) -> None:
    await gateway.add_user(locations=KEPT)
    pair = await connected(gateway, platform)
    assert (await gateway.check("x")).status == 401
    assert (await gateway.check(pair["accessToken"], 98)).status == 403
    await gateway.admin("DELETE", "connections/99")
    assert (await gateway.check(pair["accessToken"])).status == 401
    assert platform.seen == []


@pytest.mark.parametrize("user_id", ["a/b", "a?b=c#d", "50%", "ä ö", "a%2Fb", "{userId}", "..x"])
async def test_the_users_id_arrives_as_it_is(platform: Platform, user_id: str) -> None:
    await PlatformInventory(platform.url, None).locations(user_id)
    (asked,) = platform.seen
    assert asked.match_info["rest"] == f"v1/inventory/{user_id}"
    assert asked.raw_path.count("/") == 3, asked.raw_path
    assert hdrs.AUTHORIZATION not in asked.headers


@pytest.mark.parametrize("user_id", [".", ".."])
async def test_an_id_that_leads_elsewhere_is_not_asked_for(platform: Platform, user_id: str) -> None:
    with pytest.raises(GatewayError):
        await PlatformInventory(platform.url, None).locations(user_id)
    assert platform.seen == []


# --- whatever the platform does ---------------------------------------------------------------------------------------


def says(text: str | bytes, status: int = 200, encoding: str = "identity") -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        body = text.encode() if isinstance(text, str) else text
        return web.Response(status=status, body=body, headers={"Content-Encoding": encoding})

    return answer


async def never(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 65_536)


async def dripping(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


async def breaking_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={hdrs.CONTENT_LENGTH: "1000"})
    await response.prepare(request)
    await response.write(b'{"2":')
    assert request.transport is not None
    request.transport.close()
    return response


async def redirecting(request: web.Request) -> web.StreamResponse:
    raise (
        web.HTTPFound(f"{request.path}/elsewhere")
        if "elsewhere" not in request.path
        else web.HTTPOk(body=dumps(LIVE), content_type="application/json")
    )


fails = says("{}", 503)
TROUBLE: dict[str, Answer] = {
    "503": fails,
    "404": says("{}", 404),
    "204": says("", 204),
    "empty": says(""),
    "not JSON": says("<html>"),
    "a key twice": says('{"2":{},"2":{}}'),
    "a list": says("[]"),
    "an error in JSON": says('{"error":"no"}'),
    "another ID": says(dumps({"9": LIVE["2"]})),
    "a status of its own": says(dumps({"2": LIVE["2"] | {"status": "sold"}})),
    "NUL": says(dumps({"2": LIVE["2"] | {"name": "a\0"}})),
    "packed": says(gzip.compress(dumps(LIVE)), encoding="gzip"),
    "too large": says(dumps(LIVE) + b" " * MAX_BODY),
    "endless": endless,
    "breaking off": breaking_off,
    "redirecting": redirecting,
}


@ON_SQLITE
@pytest.mark.parametrize("trouble", TROUBLE)
async def test_without_a_good_answer_what_is_kept_stands_in(gateway: Gateway, platform: Platform, trouble: str) -> None:
    """Nothing of it is kept, and the log tells the reason without token, address or answer."""
    await gateway.add_user(locations=KEPT)
    pair = await connected(gateway, platform)
    platform.answer = TROUBLE[trouble]
    with capture_logs() as logs:
        assert await shown(gateway, pair["accessToken"]) == KEPT
    assert len(platform.seen) == 1, "no redirect is followed, and it is asked once"
    (told,) = [one for one in logs if one["event"] == "inventory.not_asked"]
    assert told["connection_id"] == 99
    assert not any(word in str(told) for word in (TOKEN, "http", "127.0.0.1", "Live"))
    platform.answer = live
    assert await shown(gateway, pair["accessToken"]) == LIVE


@ON_SQLITE
@pytest.mark.parametrize("slow", [never, dripping])
async def test_a_slow_platform_is_waited_for_so_long_and_no_longer(
    database_url: str, platform: Platform, slow: Answer
) -> None:
    """However it is slow: until its answer begins, or between its bytes."""
    platform.answer = slow
    async with running(database_url, inventory=PlatformInventory(platform.url, TOKEN, seconds=0.5)) as gateway:
        await gateway.add_user(locations=KEPT)
        pair = await connected(gateway, platform)
        with capture_logs() as logs:
            assert await shown(gateway, pair["accessToken"]) == KEPT
    assert [one["reason"] for one in logs if one["event"] == "inventory.not_asked"] == ["no answer (TimeoutError)"]


@ON_SQLITE
async def test_a_platform_that_is_not_there_is_not_missed(database_url: str, unused_tcp_port: int) -> None:
    nobody = PlatformInventory(f"http://127.0.0.1:{unused_tcp_port}/{{userId}}", TOKEN)
    async with running(database_url, inventory=nobody) as gateway:
        await gateway.add_user(locations=KEPT)
        pair = await gateway.connect()
        assert await shown(gateway, pair["accessToken"]) == KEPT


async def test_the_ingress_does_not_start_with_an_address_that_names_no_user(tmp_path: Path) -> None:
    wrong = environment(
        amqp_url="amqp://127.0.0.1:1/", database_url="", settings={"INVENTORY_URL": "https://canary.example/inventory"}
    )
    done = await Stack(wrong, tmp_path).run("-m", "ingress")
    assert (done.code, done.output.count("\n"), "canary" in done.output) == (EX_CONFIG, 1, False), done.output
    assert done.output.startswith("INVENTORY_URL: has no {userId} in its path or query, such as https://")


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is the contract's; the token is in no representation."""
    monkeypatch.delenv("INVENTORY_URL", raising=False)
    assert platform_inventory(load(InventorySettings)[0]) is None
    monkeypatch.setenv("INVENTORY_URL", "https://yourapp.com/inventory?of={userId}")
    monkeypatch.setenv("INVENTORY_TOKEN", TOKEN)
    (settings,) = load(InventorySettings)
    assert client.SECONDS == 5.0
    assert TOKEN not in f"{settings!r} {settings} {platform_inventory(settings)!r}"
    monkeypatch.setenv("INVENTORY_URL", "https://yourapp.com/inventory")
    with pytest.raises(SettingsError) as caught:
        load(InventorySettings)
    (fault,) = caught.value.faults
    assert fault.startswith("INVENTORY_URL: has no {userId} in its path or query")
