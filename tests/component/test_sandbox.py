"""The stand-in Syncaroo as a server: strict as the guide, the same for the same seed, broken on order."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from pytest_aiohttp import AiohttpServer

from sandbox import hashing
from sandbox.__main__ import config_of
from sandbox.config import Single
from sandbox.driver import SandboxDriver
from sandbox.records import fingerprint
from sandbox.world import CHANGES, Node, World
from tests.component.sandbox_parts import Stand, Start, authorize_query, exchange_form, refresh_form, stands
from tests.guide import transcript
from tests.waiting import until


@pytest.fixture
async def start(aiohttp_server: AiohttpServer) -> AsyncIterator[Start]:
    async with stands(aiohttp_server) as starting:
        yield starting


async def violations(stand: Stand) -> list[str]:
    return [violation.kind for violation in (await stand.driver.records()).violations]


# the provider side: authorize


async def test_authorize_sends_the_admin_back_as_the_guide_prints(start: Start) -> None:
    stand = await start()
    async with stand.http.get(
        f"{stand.url}/api/authorize", params=authorize_query(stand.config), allow_redirects=False
    ) as answer:
        assert answer.status == 302
        back = transcript("syncaroo-authorize-return")._replace(start=f"GET {answer.headers['Location']}")
    assert back.url.startswith(stand.config.allowed_confirm_uris[0] + "?")
    assert list(back.query) == list(transcript("syncaroo-authorize-return").query)
    assert back.query["state"] == ""


@pytest.mark.parametrize(("decision", "member"), [("allow", "code"), ("deny", "error")])
async def test_authorize_page_asks_first(start: Start, decision: str, member: str) -> None:
    stand = await start(auto_approve=False)
    query = authorize_query(stand.config) | {"state": '"><b>&'}
    async with stand.http.get(f"{stand.url}/api/authorize", params=query) as answer:
        page = await answer.text()
        assert answer.status == 200
        assert "<button" in page
        assert '"><b>' not in page
    async with stand.http.post(
        f"{stand.url}/api/authorize", data=query | {"decision": decision}, allow_redirects=False
    ) as answer:
        assert f"?{member}=" in answer.headers["Location"]
        assert answer.headers["Location"].endswith("&state=%22%3E%3Cb%3E%26")


AUTHORIZE_DEVIATIONS: list[dict[str, str | None]] = [
    {"clientId": None},
    {"redirectUri": None},
    {"responseType": None},
    {"scope": None},
    {"state": None},
    {"clientId": "other"},
    {"redirectUri": "https://evil.test/confirm"},
    {"responseType": "token"},
    {"client_id": "snake"},
]


@pytest.mark.parametrize("changed", AUTHORIZE_DEVIATIONS)
async def test_authorize_refuses_deviations(start: Start, changed: dict[str, str | None]) -> None:
    stand = await start()
    query = {n: v for n, v in (authorize_query(stand.config) | changed).items() if v is not None}
    async with stand.http.get(f"{stand.url}/api/authorize", params=query, allow_redirects=False) as answer:
        assert answer.status == 400
    assert await violations(stand) == ["authorize"]


# the provider side: tokens


async def test_tokens_as_the_guide_prints_them(start: Start) -> None:
    stand = await start()
    first = await stand.exchange()
    status, second = await stand.post_token(refresh_form(stand.config, first["refreshToken"]))
    printed = transcript("syncaroo-token-answer").json
    for pair in (first, second):
        assert list(pair) == list(printed)
        assert (pair["tokenType"], pair["expiresIn"]) == (printed["tokenType"], printed["expiresIn"])
    assert status == 200
    assert second["refreshToken"] != first["refreshToken"]
    records = await stand.driver.records()
    assert [(token.grant_type, token.outcome) for token in records.tokens] == [
        ("authorization_code", "issued"),
        ("refresh_token", "issued"),
    ]
    assert records.tokens[0].issued == records.tokens[1].presented == fingerprint(first["refreshToken"])
    assert records.violations == []


TOKEN_DEVIATIONS: list[tuple[dict[str, str | None], str]] = [
    ({"clientId": None}, "invalid_request"),
    ({"redirectUri": None}, "invalid_request"),
    ({"clientSecret": None}, "invalid_request"),
    ({"code": None}, "invalid_request"),
    ({"grantType": None}, "unsupported_grant_type"),
    ({"grantType": "password"}, "unsupported_grant_type"),
    ({"grant_type": "authorization_code"}, "invalid_request"),
    ({"refreshToken": "x"}, "invalid_request"),
    ({"clientSecret": "wrong"}, "invalid_client"),
    ({"clientId": "wrong"}, "invalid_client"),
    ({"code": "unknown"}, "invalid_grant"),
    ({"redirectUri": "https://yourapp.com/other"}, "invalid_grant"),
]


@pytest.mark.parametrize(("changed", "error"), TOKEN_DEVIATIONS)
async def test_exchange_refuses_deviations(start: Start, changed: dict[str, str | None], error: str) -> None:
    stand = await start()
    whole = exchange_form(stand.config, await stand.code())
    status, answer = await stand.post_token({n: v for n, v in (whole | changed).items() if v is not None})
    assert (status, answer["error"]) == (401 if error == "invalid_client" else 400, error)
    if "code" not in changed or changed["code"] is None:
        assert await violations(stand) != []
    assert (await stand.post_token(whole))[0] == 200, "nothing was used up"


@pytest.mark.parametrize("name", ["clientId", "clientSecret", "refreshToken", "redirectUri", "scope"])
async def test_refresh_refuses_missing_and_extra_fields(start: Start, name: str) -> None:
    stand = await start()
    form = refresh_form(stand.config, (await stand.exchange())["refreshToken"])
    deviating = {n: v for n, v in form.items() if n != name} if name in form else form | {name: "x"}
    assert (await stand.post_token(deviating))[1]["error"] == "invalid_request"
    assert (await stand.post_token(form))[0] == 200


async def test_token_takes_a_form_only(start: Start) -> None:
    stand = await start()
    form = exchange_form(stand.config, await stand.code())
    async with stand.http.post(f"{stand.url}/api/token", json=form) as answer:
        assert answer.status == 400
    status, _ = await stand.post_token(form, params={"clientId": "x"})
    assert status == 400
    assert await violations(stand) == ["invalid_request", "invalid_request"]


async def test_codes_and_refresh_tokens_work_once(start: Start) -> None:
    stand = await start()
    form = exchange_form(stand.config, await stand.code())
    _, pair = await stand.post_token(form)
    refresh = refresh_form(stand.config, pair["refreshToken"])
    assert (await stand.post_token(refresh))[0] == 200
    for used in (form, refresh):
        assert await stand.post_token(used) == (400, {"error": "invalid_grant"})
    assert await violations(stand) == ["reuse", "reuse"]
    assert [token.outcome for token in (await stand.driver.records()).tokens][2:] == ["reused", "reused"]


# the API


async def test_item_and_list_as_the_guide_prints_them(start: Start) -> None:
    stand = await start(page_size=2)
    token = (await stand.exchange())["accessToken"]
    truth = await stand.driver.world()
    printed = transcript("api-answer").json
    assert {"Authorization", "Accept"} == set(transcript("api-request").headers)
    for url, data in truth.items.items():
        status, answer = await stand.get(url, token)
        assert status == 200
        assert (list(answer), list(answer["pages"])) == (list(printed), list(printed["pages"]))
        assert answer["data"] == [data]
    for url, items in truth.collections.items():
        assert await stand.walk(url, token) == [truth.items[item] for item in items]
    assert await violations(stand) == []


async def test_single_items_as_objects_and_lists_of_summaries(start: Start) -> None:
    stand = await start(single=Single.OBJECT, summaries=True)
    token = (await stand.exchange())["accessToken"]
    truth = await stand.driver.world()
    url, items = next((url, items) for url, items in truth.collections.items() if url.endswith("/resources"))
    _, answer = await stand.get(items[0], token)
    assert answer["data"] == truth.items[items[0]]
    for summary, item in zip(await stand.walk(url, token), items, strict=True):
        assert summary.items() < truth.items[item].items()


API_DEVIATIONS: list[tuple[dict[str, str], int, str]] = [
    ({"Authorization": ""}, 401, "no_bearer"),
    ({"Authorization": "bearer {token}"}, 401, "no_bearer"),
    ({"Authorization": "Token {token}"}, 401, "no_bearer"),
    ({"Authorization": "Bearer  {token}"}, 401, "no_bearer"),
    ({"Authorization": "Bearer wrong"}, 401, "unknown_token"),
    ({"Accept": "*/*"}, 406, "accept"),
    ({"Accept": "text/html"}, 406, "accept"),
]


@pytest.mark.parametrize(("headers", "status", "kind"), API_DEVIATIONS)
async def test_api_refuses_deviations(start: Start, headers: dict[str, str], status: int, kind: str) -> None:
    stand = await start()
    token = (await stand.exchange())["accessToken"]
    sent = {name: value.format(token=token) for name, value in headers.items()}
    assert (await stand.get(f"{stand.url}/v1/locations", token, **sent))[0] == status
    assert await violations(stand) == [kind]


async def test_expired_tokens_are_401_without_a_violation(start: Start) -> None:
    stand = await start()
    token = (await stand.exchange())["accessToken"]
    await stand.driver.expire_access()
    assert (await stand.get(f"{stand.url}/v1/locations", token))[0] == 401
    assert await violations(stand) == []


async def test_the_platforms_own_token_is_out_of_place(start: Start) -> None:
    stand = await start()
    await stand.confirmed()
    await stand.get(f"{stand.url}/v1/locations", "access-1")
    assert await violations(stand) == ["mixed_tokens"]


async def test_links_must_come_back_as_prepared(start: Start) -> None:
    stand = await start(page_size=1)
    token = (await stand.exchange())["accessToken"]
    _, first = await stand.get(f"{stand.url}/v1/locations", token)
    prepared = first["pages"]["next"]
    assert "%2F" in prepared
    for altered in (prepared.replace("%2F", "/"), f"{stand.url}/v1/locations?page=2"):
        assert (await stand.get(altered, token))[0] == 400
    assert (await stand.get(prepared, token))[0] == 200
    assert await violations(stand) == ["altered_link", "altered_link"]


async def test_calls_are_recorded_with_token_host_and_order(start: Start) -> None:
    stand = await start()
    token = (await stand.exchange())["accessToken"]
    before = await stand.driver.quiet()
    await stand.get(f"{stand.url}/v1/locations", token)
    await stand.get(f"{stand.url}/v1/locations", token, Host="api.evil.test")
    records = await stand.driver.records(after=before)
    assert [(call.token, call.host) for call in records.calls] == [
        (fingerprint(token), f"127.0.0.1:{stand.config.port}"),
        (fingerprint(token), "api.evil.test"),
    ]
    assert [v.kind for v in records.violations] == ["foreign_host"]
    assert before < records.calls[0].order_began < (records.calls[0].order_ended or 0) < records.calls[1].order_began
    assert token not in str(await stand.driver.records())


# the client side


async def test_connecting_is_the_guides_sequence(start: Start) -> None:
    stand = await start()
    sent = transcript("authorize-request")._replace(start=f"GET {await stand.driver.connect(99)}")
    assert list(sent.query) == list(transcript("authorize-request").query)
    await stand.confirmed()
    platform = stand.platform
    assert platform.order[:2] == ["token", "check"]
    printed = transcript("token-request")
    assert list(platform.tokens[0]) == list(printed.form)
    assert platform.token_headers[0]["Content-Type"] == printed.headers["Content-Type"]
    assert platform.checks == [("Bearer access-1", transcript("check-request").query)]
    connection = (await stand.driver.connections())[99]
    assert (connection.state, connection.user_id) == ("confirmed", "1")
    assert set(connection.locations.values()) == {"1198", "7120", "8102"}
    assert set(connection.resources.values()) == {"7843", "7842"}
    assert await violations(stand) == []


async def test_first_burst_tells_matched_locations_resources_and_rates(start: Start) -> None:
    stand = await start()
    await stand.confirmed()
    told = [body for _, body in stand.platform.webhooks]
    count = {
        kind: sum(b["metaData"]["attributeType"] == kind for b in told) for kind in ("locations", "resources", "rates")
    }
    assert count == {"locations": 3, "resources": 2, "rates": 2}
    for headers, body in stand.platform.webhooks:
        assert headers["Authorization"] == "Bearer access-1"
        assert headers["Content-Type"] == "application/json"
        assert list(body) == list(transcript("webhook").json)
        unsigned = {name: value for name, value in body.items() if name != "hash"}
        assert body["hash"] == hashing.digest(unsigned, "hmac-sha256:sorted:hex", stand.config.platform_client_secret)
    records = await stand.driver.records()
    assert {(w.status, w.cause) for w in records.webhooks} == {(200, "first")}
    assert {w.delivery_id for w in records.webhooks} == {f"d{n}" for n in range(1, 8)}
    truth = await stand.driver.world()
    assert len(truth.expected["99"]) == 3 + 2 + sum(
        len(truth.collections[w.url]) for w in records.webhooks if w.url.endswith("/rates")
    )


async def test_changes_send_webhooks_to_their_own_url(start: Start) -> None:
    stand = await start()
    await stand.confirmed()
    connection = (await stand.driver.connections())[99]
    world = await stand.driver.world()
    room = next(u for u in world.items if u.rpartition("/")[2] in connection.resources)
    rate = world.collections[f"{room}/rates"][0]
    before = len(stand.platform.webhooks)
    changed = await stand.driver.change("price", rate, value="77.50")
    removed = await stand.driver.change("remove", room)
    _, price = stand.platform.webhooks[before]
    _, gone = stand.platform.webhooks[before + 1]
    assert price["metaData"]["apiUrl"] == changed.url == rate
    assert price["metaData"]["resourceId"] in {"7843", "7842"}
    assert gone["metaData"]["apiUrl"] == removed.url == room
    assert rate in removed.gone
    token = (await stand.exchange())["accessToken"]
    assert {(await stand.get(url, token))[0] for url in removed.gone} == {404}
    assert set(removed.gone) <= set((await stand.driver.world()).gone)


async def test_a_lost_webhook_is_recorded_and_never_sent(start: Start) -> None:
    stand = await start()
    await stand.confirmed()
    before = len(stand.platform.webhooks)
    await stand.driver.change("rename", webhook=False)
    lost = (await stand.driver.records()).webhooks[-1]
    assert (lost.lost, lost.status, lost.order_answered) == (True, None, None)
    assert len(stand.platform.webhooks) == before


async def test_a_burst_goes_round_its_targets(start: Start) -> None:
    stand = await start()
    await stand.confirmed()
    before = len(stand.platform.webhooks)
    assert await stand.driver.burst(50, 5, concurrency=10, shuffle=True) == 50
    urls = [body["metaData"]["apiUrl"] for _, body in stand.platform.webhooks[before:]]
    assert (len(urls), len(set(urls))) == (50, 5)


async def test_tokens_are_refreshed_before_they_expire(start: Start) -> None:
    stand = await start(first_burst=False)
    stand.platform.expires = "2009-06-15T13:45:30"
    await stand.confirmed()
    await stand.driver.change("rename")
    refreshed = stand.platform.tokens[-1]
    assert set(refreshed) == {"clientId", "clientSecret", "refreshToken", "grantType"}
    assert refreshed["grantType"] == "refresh_token"
    assert stand.platform.webhooks[-1][0]["Authorization"] == f"Bearer access-{len(stand.platform.tokens)}"


async def test_a_refused_webhook_is_not_sent_again(start: Start) -> None:
    stand = await start(first_burst=False)
    await stand.confirmed()
    stand.platform.webhook_status = 401
    await stand.driver.change("rename")
    assert len(stand.platform.webhooks) == 1
    await stand.driver.change("rename")
    assert stand.platform.webhooks[1][0]["Authorization"] == "Bearer access-2", "a 401 makes it refresh"


async def test_what_the_platform_answers_is_judged(start: Start) -> None:
    stand = await start(first_burst=False)
    stand.platform.check |= {"connectionId": "99"}
    await stand.confirmed()
    assert await violations(stand) == ["check_connection"]
    stand.platform.expires = "2099-06-15T13:45:30+00:00"
    with pytest.raises(AssertionError, match="expires must be"):
        await stand.confirmed()


async def test_coming_back_without_a_code(start: Start) -> None:
    stand = await start()
    await stand.driver.connect(99)
    back = stand.config.redirect_uri
    for query, status in (({"connectionId": "98"}, 400), ({"connectionId": "99", "error": "access_denied"}, 200)):
        async with stand.http.get(back, params=query) as answer:
            assert answer.status == status
    assert (await stand.driver.connections())[99].state == "denied"
    assert await violations(stand) == ["redirect"]


async def test_hand_made_webhooks(start: Start) -> None:
    stand = await start(first_burst=False)
    await stand.confirmed()
    record = await stand.driver.webhook(99, json.dumps({"odd": True}), token="", url="https://x/")
    assert (record.status, record.url, record.delivery_id) == (200, "https://x/", "d1")
    assert "Authorization" not in stand.platform.webhooks[0][0]


async def test_the_front_page_shows_and_changes(start: Start) -> None:
    stand = await start()
    await stand.confirmed()
    async with stand.http.post(f"{stand.url}/actions/price") as answer:
        page = await answer.text()
        assert (answer.status, str(answer.url)) == (200, f"{stand.url}/")
    assert "confirmed" in page
    assert "Bearer" not in page
    async with stand.http.post(
        f"{stand.url}/actions/connect", data={"connectionId": "100"}, allow_redirects=False
    ) as answer:
        assert answer.headers["Location"].startswith(f"{stand.config.auth_uri}?connectionId=100&")


async def test_it_lives_until_it_is_told_to_be_quiet(start: Start) -> None:
    stand = await start(change_every=0.01)

    async def changes() -> int:
        return len((await stand.driver.records()).changes)

    def is_alive() -> bool:
        return any("._live" in repr(task.get_coro()) for task in asyncio.all_tasks())

    await until(changes)
    assert is_alive()
    await stand.driver.quiet()
    await until(lambda: not is_alive())


# the process


def test_flags_and_environment_make_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_PAGE_SIZE", "7")
    made = config_of(["--port", "1234", "--summaries", "--single", "object", "--confirm-uris", "https://a,https://b"])
    assert (made.page_size, made.port, made.summaries, made.single) == (7, 1234, True, Single.OBJECT)
    assert made.allowed_confirm_uris == ("https://a", "https://b")
    with pytest.raises(SystemExit):
        config_of(["--port", "no number"])


async def test_sigterm_ends_the_process_with_0() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sandbox", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    said = (await process.stdout.readline()).decode()
    async with SandboxDriver(said.split()[3].rstrip(",")) as driver:
        assert (await until(lambda: _config(driver)))["seed"] == 1
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0


# the world


def test_the_same_seed_gives_the_same_world() -> None:
    assert _history(7) == _history(7)
    assert _history(7) != _history(8)


@pytest.mark.parametrize("kind", CHANGES)
def test_every_change_changes_something(kind: str) -> None:
    world = World(3)
    if kind == "restore":
        world.remove()
    before = [(path, str(node.data)) for path, node in world.items()]
    seen = world.seen_by_api()
    world.apply(kind)
    assert [(path, str(node.data)) for path, node in world.items()] != before
    assert [(path, str(_need(world, path, seen).data)) for path, _ in before] == before, "the past stays as it was"


def test_what_was_removed_comes_back_as_it_was() -> None:
    world = World(3)
    before = {path: str(node.data) for path, node in world.items()}
    removed = world.remove()
    assert set(before) - {path for path, _ in world.items()} == set(removed.gone)
    assert world.restore().path == removed.path
    assert {path: str(node.data) for path, node in world.items()} == before


async def test_a_storm_is_told_doubled_shuffled_and_lost(start: Start) -> None:
    stand = await start(locations=1, first_burst=False)
    await stand.confirmed()
    await stand.driver.fault("webhook_lost", probability=0.1, count=None)
    await stand.driver.fault("webhook_double", probability=0.2, count=None)
    await stand.driver.fault("webhook_reorder", probability=0.3, count=None)
    assert await stand.driver.storm(300, {"price": 7, "rename": 1, "move": 1, "room": 1}) == 300
    await stand.driver.quiet()
    records = await stand.driver.records()
    assert len(records.changes) == 300
    assert 10 <= sum(hook.lost for hook in records.webhooks) <= 60
    assert 320 <= len(records.webhooks) <= 400
    assert any(hook.url.endswith("/resources") for hook in records.webhooks), "a move is told of the list"


def test_the_world_is_as_odd_as_real_ones() -> None:
    world = World(1, locations=40, resources=8, rates=5)
    data = [node.data for _, node in world.items()]
    assert {type(d["address"]) for d in data if "address" in d} == {dict, list, str}
    assert {type(d["price"]) for d in data if "price" in d} >= {str, int, float, type(None)}
    assert {type(d["hoursOfOperation"]) for d in data if "hoursOfOperation" in d} == {dict, list}
    assert any(d.get("type") == "floor" and d["capacity"] is None for d in data)
    assert any(len(str(d.get("description", ""))) > 15_000 for d in data)
    assert any("syncarooId" in d for d in data)
    assert any("price" in d and "currency" not in d for d in data)
    assert len(data) > 1000


async def _config(driver: SandboxDriver) -> dict[str, Any]:
    try:
        return await driver.config()
    except aiohttp.ClientError:
        return {}


def _need(world: World, path: str, seen: Node) -> Node:
    found = world.item(path, seen)
    assert found is not None
    return found


def _history(seed: int) -> list[tuple[str, str]]:
    world = World(seed)
    for _ in range(30):
        world.random_change()
    return [(path, str(node.data)) for path, node in world.items()]
