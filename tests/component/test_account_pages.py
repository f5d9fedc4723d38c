"""/account: a user sees their connections, ends them in two steps, signs out (CONTRACT §3.9)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, update

from schemas.tables import ConnectionRow, EventRow, FeedRow, table_of
from tests.component.gateway_parts import Gateway, all_forms, authorize, first_form, running

ACCOUNT = "/account"
REVOKE = "/account/revoke"


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Gateway]:
    """Ada has connections 99 and 100, Bob has 7."""
    async with running(database_url) as gateway:
        await gateway.add_user("1", "ada")
        await gateway.add_user("2", "bob")
        await gateway.connect(7, "bob")
        await gateway.connect(99)
        await gateway.connect(100)
        gateway.http.session.cookie_jar.clear()
        yield gateway


async def text_of(gateway: Gateway, address: str = ACCOUNT) -> str:
    return await (await gateway.http.get(address)).text()


async def csrf_of(gateway: Gateway) -> str:
    return first_form(await text_of(gateway)).fields["csrf"]


async def test_one_signs_in_and_arrives_where_one_was_going(gateway: Gateway) -> None:
    answer = await gateway.http.get(ACCOUNT)
    assert answer.status == 200
    assert sorted(first_form(await answer.text()).visible) == ["password", "text"]
    assert (await gateway.log_in(ACCOUNT, password="wrong")).status == 401
    there = await gateway.log_in(ACCOUNT)
    assert (there.status, there.headers["Location"]) == (303, ACCOUNT)
    gateway.http.session.cookie_jar.clear()
    assert (await gateway.log_in("/account?revoked=1")).headers["Location"] == "/account?revoked=1"


async def test_one_sees_one_s_own_connections_and_no_other_s(gateway: Gateway) -> None:
    await gateway.check((await gateway.connect(100))["accessToken"], 100)
    text = await text_of(gateway)
    assert "signed in as <strong><bdi>ada</bdi></strong>" in text
    assert "Connection 99" in text
    assert "waiting for Syncaroo" in text
    assert "connected" in text
    assert "Connection 7" not in text
    answer = await gateway.http.get(ACCOUNT)
    assert answer.headers["Cache-Control"] == "no-store"


async def test_revoking_asks_first_and_is_what_an_operator_s_delete_is(gateway: Gateway) -> None:
    """T-OP-REVOKE"""
    pair = await gateway.connect(99)
    form = first_form(await text_of(gateway))
    assert form.fields["connectionId"] == "99"
    asked = await gateway.http.post(REVOKE, data=form.fields)
    question = first_form(await asked.text())
    assert (asked.status, "Revoke connection 99?" in await asked.text()) == (200, True)
    assert (await gateway.check(pair["accessToken"])).status == 200, "nothing is done yet"

    for _ in range(2):  # a form that is sent twice
        done = await gateway.http.post(REVOKE, data=question.fields, allow_redirects=False)
        assert (done.status, done.headers["Location"]) == (303, "/account?revoked=99")
    assert "Connection 99 is revoked" in await text_of(gateway, "/account?revoked=99")
    assert (await gateway.check(pair["accessToken"])).status == 401
    assert (await gateway.refresh(pair["refreshToken"]))[1]["error"] == "invalid_grant"
    states = {row.connection_id: row.state for row in await gateway.rows(ConnectionRow)}
    assert (states[99], states[100] == "revoked") == ("revoked", False)
    assert [row.type for row in await gateway.rows(EventRow)].count("connection.changed") == 2  # confirmed, revoked
    # What can still be revoked comes first.
    assert first_form(await text_of(gateway)).fields["connectionId"] == "100"


async def test_it_is_said_since_when_and_until_when(gateway: Gateway) -> None:
    await gateway.check((await gateway.connect(100))["accessToken"], 100)
    waiting, connected = (await text_of(gateway)).split("Connection 99")[1].split("Connection 100")
    assert ("<dt>Allowed</dt>" in waiting, "Connected since" in waiting) == (True, False)
    assert ("<dt>Connected since</dt>" in connected, "<dt>Allowed</dt>" in connected) == (True, False)
    assert "Last heard" not in waiting + connected
    async with gateway.store.transaction() as transaction:
        heard = {"connection_id": 100, "heard_at": datetime(2026, 3, 1, 12, tzinfo=UTC)}
        await transaction.execute(insert(table_of(FeedRow)).values(heard))
        revoked = {"state": "revoked", "revoked_at": datetime(2026, 3, 2, 12, tzinfo=UTC)}
        await transaction.execute(update(table_of(ConnectionRow)).values(revoked))
    text = await text_of(gateway)
    assert "Connected since" not in text
    assert text.count("<dt>Revoked</dt>") == text.count("2 Mar 2026, 12:00 UTC") == 2
    assert text.count("<dt>Last heard from Syncaroo</dt>") == text.count("1 Mar 2026, 12:00 UTC") == 1


async def test_an_address_of_a_form_leads_back_to_the_account(gateway: Gateway) -> None:
    for address in (REVOKE, "/account/sign-out"):
        answer = await gateway.http.get(address, allow_redirects=False)
        assert (answer.status, answer.headers.get("Location")) == (303, ACCOUNT), address
    await gateway.log_in(ACCOUNT)
    await gateway.http.get("/account/sign-out")
    assert "signed in as" in await text_of(gateway), "nothing was done"


async def test_a_notice_tells_only_what_is_so(gateway: Gateway) -> None:
    await gateway.log_in(ACCOUNT)
    for told in ("99", "7", "<b>", ""):
        assert "is revoked" not in await text_of(gateway, f"/account?revoked={told}")


async def test_another_s_connection_cannot_be_revoked(gateway: Gateway) -> None:
    await gateway.log_in(ACCOUNT)
    csrf = await csrf_of(gateway)
    for number in ("7", "12345", "x", ""):
        fields = {"csrf": csrf, "connectionId": number, "sure": "yes"}
        assert (await gateway.http.post(REVOKE, data=fields)).status == 400
    assert {row.state for row in await gateway.rows(ConnectionRow)} == {"authorised"}


@pytest.mark.parametrize("csrf", [None, "", "x"])
async def test_a_form_that_is_not_of_this_session_does_nothing(gateway: Gateway, csrf: str | None) -> None:
    """T-OP-CSRF"""
    await gateway.log_in(ACCOUNT)
    token = {} if csrf is None else {"csrf": csrf}
    fields = token | {"connectionId": "99", "sure": "yes"}
    assert (await gateway.http.post(REVOKE, data=fields)).status == 403
    assert (await gateway.http.post("/account/sign-out", data=token)).status == 403
    assert "Connection 99" in await text_of(gateway)
    assert {row.state for row in await gateway.rows(ConnectionRow)} == {"authorised"}


ELSEWHERE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://localhost"},
    {"Origin": "https://localhost:8080"},
    {"Origin": "http://localhost:8080.evil.example"},
    {"Origin": "http://["},
    {"Origin": ""},
]
OURS = [
    {"Sec-Fetch-Site": "same-origin", "Origin": "null"},  # what browsers send with our Referrer-Policy
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:8080"},
    {"Sec-Fetch-Site": "none", "Host": "an-inner-name"},
]


@pytest.mark.parametrize("headers", ELSEWHERE, ids=str)
async def test_a_form_from_another_site_does_nothing(gateway: Gateway, headers: dict[str, str]) -> None:
    """T-OP-CSRF: also if it has learnt the token."""
    login = first_form(await text_of(gateway)).fields | {"login": "ada", "password": "ada-password"}
    assert (await gateway.http.post(ACCOUNT, data=login, headers=headers)).status == 403
    await gateway.log_in(ACCOUNT)
    fields = {"csrf": await csrf_of(gateway), "connectionId": "99", "sure": "yes", "decision": "allow"}
    for address in (REVOKE, "/account/sign-out", authorize()):
        answer = await gateway.http.post(address, data=fields, headers=headers, allow_redirects=False)
        assert (answer.status, answer.content_type) == (403, "text/html")
    assert "Connection 99" in await text_of(gateway)
    assert {row.state for row in await gateway.rows(ConnectionRow)} == {"authorised"}
    assert (await gateway.http.get(ACCOUNT, headers=headers)).status == 200, "links may come from anywhere"


@pytest.mark.parametrize("headers", OURS, ids=str)
async def test_a_form_of_our_own_works(gateway: Gateway, headers: dict[str, str]) -> None:
    login = first_form(await text_of(gateway)).fields | {"login": "ada", "password": "ada-password"}
    assert (await gateway.http.post(ACCOUNT, data=login, headers=headers, allow_redirects=False)).status == 303


async def test_nobody_revokes_without_being_signed_in(gateway: Gateway) -> None:
    answer = await gateway.http.post(REVOKE, data={"connectionId": "99", "sure": "yes"}, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, ACCOUNT)
    assert {row.state for row in await gateway.rows(ConnectionRow)} == {"authorised"}


async def test_signing_out_ends_the_session(gateway: Gateway) -> None:
    await gateway.log_in(ACCOUNT)
    out = next(form for form in all_forms(await text_of(gateway)) if "connectionId" not in form.fields)
    answer = await gateway.http.post("/account/sign-out", data=out.fields, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/account/signed-out")
    assert "You are signed out" in await text_of(gateway, "/account/signed-out")
    assert "password" in first_form(await text_of(gateway)).fields
    assert "password" in first_form(await text_of(gateway, authorize())).fields
