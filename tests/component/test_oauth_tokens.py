"""ingress.oauth.exchange and check: codes, refresh tokens, check_connection, revocation (CONTRACT §3.2, §3.3)."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from common.access_tokens import AccessToken
from common.clock import wall_seconds
from common.errors import StoreUnavailable
from common.store.engine import Store
from ingress.oauth.revocations import Revocations
from schemas.tables import CodeRow, EventRow, FamilyRow
from tests.component.gateway_parts import (
    CLIENT_ID,
    LOCATIONS,
    NEW_SECRET,
    OLD_SECRET,
    OTHER_REDIRECT,
    REDIRECT,
    TOKEN,
    Gateway,
    running,
)
from tests.guide import transcript
from tests.waiting import until


def basic(secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{CLIENT_ID}:{secret}".encode()).decode()}


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Gateway]:
    async with running(database_url) as gateway:
        await gateway.add_user(locations=LOCATIONS)
        yield gateway


async def test_the_guide_s_exchange_and_check(gateway: Gateway) -> None:
    """T-OP-CONTRACT"""
    form = transcript("token-request").form | {"clientSecret": NEW_SECRET, "code": await gateway.code()}
    answer = await gateway.http.post(TOKEN, data=form)
    pair = await answer.json()
    assert list(pair) == list(transcript("token-answer").json)
    assert answer.headers["Cache-Control"] == "no-store"
    expires = datetime.strptime(pair["expires"], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    assert abs(expires - datetime.now(UTC) - timedelta(seconds=3600)) < timedelta(seconds=60)

    for path in ("/api/check_connection", "/check_connection"):
        headers = {"Authorization": f"Bearer {pair['accessToken']}"}
        checked = await gateway.http.get(f"{path}?connectionId=99", headers=headers)
        assert checked.headers["Content-Type"] == transcript("check-answer").headers["Content-Type"]
        assert await checked.json() == transcript("check-answer").json
    events = [(row.type, row.subject) for row in await gateway.rows(EventRow)]
    assert events == [("connection.changed", "99")]  # confirmed once, however often it is checked


async def test_no_listings_are_an_empty_map(gateway: Gateway) -> None:
    await gateway.add_user("2", "bob")
    pair = await gateway.connect(100, "bob")
    checked = await gateway.check(pair["accessToken"], 100)
    assert await checked.json() == {"connectionId": 100, "userId": "2", "locations": {}}


REFUSALS = [
    ({"clientSecret": "wrong"}, 401, "invalid_client"),
    ({"clientSecret": "ü"}, 401, "invalid_client"),
    ({"clientId": "someone"}, 401, "invalid_client"),
    ({"clientId": "", "clientSecret": ""}, 401, "invalid_client"),
    ({"client_id": "someone"}, 400, "invalid_request"),
    ({"code": "wrong"}, 400, "invalid_grant"),
    ({"code": ""}, 400, "invalid_request"),
    ({"redirectUri": OTHER_REDIRECT}, 400, "invalid_grant"),
    ({"grantType": ""}, 400, "invalid_request"),
    ({"grantType": "password"}, 400, "unsupported_grant_type"),
]


async def test_a_refusal_uses_nothing_up(gateway: Gateway) -> None:
    code = await gateway.code()
    for change, status, error in REFUSALS:
        refused = await gateway.exchange(**({"grantType": "authorization_code", "code": code} | change))
        assert (refused[0], refused[1]["error"]) == (status, error), change
        assert set(refused[1]) == {"error", "errorDescription"}
    assert (await gateway.redeem(code, redirectUri=REDIRECT))[0] == 200


async def test_what_is_not_a_form_with_each_field_once_is_refused(gateway: Gateway) -> None:
    body = f"clientId={CLIENT_ID}&clientSecret={OLD_SECRET}&grantType=refresh_token&refreshToken=x"
    for data, headers in (
        (f"{body}&refreshToken=x", FORM),
        (f"{body}&x=%FF", FORM),
        (body, {"Content-Type": "text/plain"}),
        ("{}", {"Content-Type": "application/json"}),
    ):
        answer = await gateway.http.post(TOKEN, data=data, headers=headers)
        assert (answer.status, (await answer.json())["error"]) == (400, "invalid_request")


async def test_the_client_may_come_by_basic(gateway: Gateway) -> None:
    code = await gateway.code()
    form = {"grant_type": "authorization_code", "code": code}
    wrong = await gateway.http.post(TOKEN, data=form, headers=basic("wrong"))
    assert (wrong.status, wrong.headers["WWW-Authenticate"][:5]) == (401, "Basic")
    for header in ("Basic", "Basic %%", "Basic /w==", "Bearer x"):
        answer = await gateway.http.post(TOKEN, data=form, headers={"Authorization": header})
        assert answer.status == 401
    twice = form | {"clientSecret": OLD_SECRET}
    both = await gateway.http.post(TOKEN, data=twice, headers=basic(OLD_SECRET))
    assert (both.status, (await both.json())["error"]) == (400, "invalid_request")
    right = await gateway.http.post(TOKEN, data=form, headers=basic(OLD_SECRET))
    assert right.status == 200


async def test_a_code_lives_for_minutes(gateway: Gateway) -> None:
    """T-OP-CODE"""
    code = await gateway.code()
    await gateway.change(CodeRow, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert (await gateway.redeem(code))[1]["error"] == "invalid_grant"


async def test_a_code_presented_twice_takes_back_what_it_issued(gateway: Gateway) -> None:
    """T-OP-CODE"""
    code = await gateway.code()
    _, pair = await gateway.redeem(code)
    assert (await gateway.check(pair["accessToken"])).status == 200
    assert (await gateway.redeem(code, clientSecret="wrong"))[0] == 401
    assert (await gateway.check(pair["accessToken"])).status == 200  # a stranger takes nothing back
    assert (await gateway.redeem(code))[1]["error"] == "invalid_grant"
    assert (await gateway.check(pair["accessToken"])).status == 401
    assert (await gateway.refresh(pair["refreshToken"]))[1]["error"] == "invalid_grant"


async def test_a_lost_refresh_costs_nothing(gateway: Gateway) -> None:
    """T-OP-REFRESH"""
    first = (await gateway.connect())["refreshToken"]
    answers = await asyncio.gather(*(gateway.refresh(first) for _ in range(10)))
    successors = {pair["refreshToken"] for status, pair in answers if status == 200}
    assert len(successors) == 1  # everyone got the same
    second = successors.pop()
    status, pair = await gateway.refresh(second)
    assert status == 200
    assert (await gateway.check(pair["accessToken"])).status == 200
    assert (await gateway.refresh(first))[1]["error"] == "invalid_grant"  # its successor was used
    assert (await gateway.refresh(pair["refreshToken"]))[0] == 200  # soon after: no theft


async def test_a_retired_token_presented_late_ends_the_family(gateway: Gateway) -> None:
    first = await gateway.connect()
    _, second = await gateway.refresh(first["refreshToken"])
    _, third = await gateway.refresh(second["refreshToken"])
    await gateway.change(FamilyRow, rotated_at=datetime.now(UTC) - timedelta(seconds=31))
    assert (await gateway.refresh(second["refreshToken"]))[0] == 200  # late, and still only a lost answer
    assert (await gateway.refresh(first["refreshToken"]))[1]["error"] == "invalid_grant"
    assert (await gateway.refresh(third["refreshToken"]))[1]["error"] == "invalid_grant"
    assert (await gateway.check(third["accessToken"])).status == 401


async def test_a_newer_rotation_does_not_excuse_a_token_that_was_retired_long_ago(gateway: Gateway) -> None:
    """T-OP-REFRESH: the client goes on refreshing while somebody has an old one."""
    pairs = [await gateway.connect()]
    for _ in range(3):
        pairs.append((await gateway.refresh(pairs[-1]["refreshToken"]))[1])
        await gateway.change(FamilyRow, rotated_at=datetime.now(UTC) - timedelta(seconds=31))
    _, newest = await gateway.refresh(pairs[-1]["refreshToken"])
    assert (await gateway.refresh(pairs[2]["refreshToken"]))[1]["error"] == "invalid_grant"
    assert (await gateway.check(newest["accessToken"])).status == 200, "retired just now"
    assert (await gateway.refresh(pairs[1]["refreshToken"]))[1]["error"] == "invalid_grant"
    assert (await gateway.check(newest["accessToken"])).status == 401


async def test_refresh_tokens_slide_and_end(gateway: Gateway) -> None:
    pair = await gateway.connect()
    await gateway.change(FamilyRow, expires_at=datetime.now(UTC) + timedelta(seconds=5))
    _, pair = await gateway.refresh(pair["refreshToken"])
    (row,) = await gateway.rows(FamilyRow)
    assert row.expires_at > datetime.now(UTC) + timedelta(days=89)
    await gateway.change(FamilyRow, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert (await gateway.refresh(pair["refreshToken"]))[1]["error"] == "invalid_grant"


async def test_a_refresh_token_that_we_did_not_sign_is_refused(gateway: Gateway) -> None:
    token = (await gateway.connect())["refreshToken"]
    for wrong in (token[:-1], token.replace(".1.", ".2."), "sgw_rt_", token.upper(), "x", "ü"):
        assert (await gateway.refresh(wrong))[1]["error"] == "invalid_grant"
    assert (await gateway.refresh(token))[0] == 200


async def test_check_refuses_what_is_not_this_connection_s_live_token(gateway: Gateway) -> None:
    """T-OP-CHECK"""
    token = (await gateway.connect())["accessToken"]
    family = (await gateway.rows(FamilyRow))[0].family
    now = wall_seconds()
    for wrong in (
        "",
        "x",
        token[:-2],
        gateway.tokens.issue(99, family, now - 3601),
        gateway.tokens.issue(99, "f", now),
    ):
        answer = await gateway.check(wrong)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert answer.content_type == "application/problem+json"
    assert (await gateway.http.get("/check_connection?connectionId=99")).status == 401
    assert (await gateway.check(token, 100)).status == 403
    assert (await gateway.check(token, "x")).status == 400
    assert (await gateway.check(token, "99&connectionId=99")).status == 400


async def test_a_revoked_connection_gets_nothing_any_more(gateway: Gateway) -> None:
    """T-OP-REVOKE"""
    code = await gateway.code()
    pair = await gateway.connect()
    revocations = Revocations(gateway.store, 3600)
    stop = asyncio.Event()
    watching = asyncio.create_task(revocations.run(stop))
    token = gateway.tokens.read(pair["accessToken"], wall_seconds())
    assert isinstance(token, AccessToken)
    assert not revocations.is_revoked(token)
    assert (await gateway.admin("DELETE", "connections/99"))[0] == 204
    await until(partial(revocations.is_revoked, token), timeout=5)
    stop.set()
    await watching
    assert (await gateway.check(pair["accessToken"])).status == 401
    assert (await gateway.refresh(pair["refreshToken"]))[1]["error"] == "invalid_grant"
    assert (await gateway.redeem(code))[1]["error"] == "invalid_grant"


async def test_a_code_ends_with_the_connection_and_does_not_come_back_with_it(gateway: Gateway) -> None:
    """T-OP-REVOKE: whoever kept it has nothing when the user consents again."""
    before = await gateway.code()
    assert (await gateway.admin("DELETE", "connections/99"))[0] == 204
    after = await gateway.code()
    assert (await gateway.redeem(before))[1]["error"] == "invalid_grant"
    status, pair = await gateway.redeem(after)
    assert status == 200
    assert (await gateway.check(pair["accessToken"])).status == 200


async def test_a_token_issued_for_longer_than_they_are_now_stays_revoked(gateway: Gateway) -> None:
    """T-OP-REVOKE: ACCESS_TOKEN_SECONDS may be lowered."""
    pair = await gateway.connect()
    token = gateway.tokens.read(pair["accessToken"], wall_seconds())
    assert isinstance(token, AccessToken)
    await gateway.change(FamilyRow, revoked_at=datetime.now(UTC) - timedelta(hours=23))
    revocations = Revocations(gateway.store, 60)
    await revocations.refresh()
    assert revocations.is_revoked(token)


async def test_revocations_keep_what_they_know_while_the_store_is_away(gateway: Gateway) -> None:
    pair = await gateway.connect()
    await gateway.admin("DELETE", "connections/99")
    revocations = Revocations(gateway.store, 3600)
    await revocations.refresh()
    revocations._store._store = Store("sqlite+aiosqlite:////nowhere/at/all.db")
    with pytest.raises(StoreUnavailable):
        await revocations.refresh()
    token = gateway.tokens.read(pair["accessToken"], wall_seconds())
    assert isinstance(token, AccessToken)
    assert revocations.is_revoked(token)


async def test_without_a_store_everyone_is_told_to_come_back() -> None:
    async with running("sqlite+aiosqlite:////nowhere/at/all.db") as gateway:
        token = gateway.tokens.issue(99, "f", wall_seconds())
        status, body = await gateway.redeem("x")
        assert (status, body["error"]) == (503, "temporarily_unavailable")
        checked = await gateway.check(token)
        assert (checked.status, checked.content_type) == (503, "application/problem+json")
        assert int(checked.headers["Retry-After"]) > 0
        assert (await gateway.admin("GET", "status"))[0] == 503
