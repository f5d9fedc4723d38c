"""The provider's endpoints against whoever means harm, or clicks twice: each row of the list, on both databases."""

import asyncio
import secrets
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import ClientResponse, DummyCookieJar

from ingress.oauth.rules import challenge_of
from ingress.oauth.throttle import CLIENT
from schemas.tables import CodeRow, ConnectionRow, FamilyRow
from tests.component.gateway_parts import (
    AUTHORIZE,
    CLIENT_ID,
    LOCATIONS,
    NEW_SECRET,
    REDIRECT,
    TOKEN,
    Form,
    Gateway,
    Visitor,
    authorize,
    first_form,
    query_of,
    running,
)
from tests.fixtures.database import ON_SQLITE

AT_ONCE = 30


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Gateway]:
    async with running(database_url) as gateway:
        await gateway.add_user(locations=LOCATIONS)
        await gateway.add_user("2", "bob")
        yield gateway


async def is_a_page_and_no_redirect(answer: ClientResponse) -> bool:
    assert (answer.status, answer.content_type) == (400, "text/html"), answer.url
    assert "Location" not in answer.headers
    assert "evil" not in await answer.text()
    return True


async def refuses(gateway: Visitor, address: str) -> bool:
    """Nobody is sent anywhere: not by looking, not by deciding."""
    for method in ("GET", "POST"):
        data = {"decision": "deny"} if method == "POST" else None
        answer = await gateway.http.request(method, address, data=data, allow_redirects=False)
        await is_a_page_and_no_redirect(answer)
    return True


# --- where one is sent ---------------------------------------------------------------------------------------------

ELSEWHERE = [
    REDIRECT[:-1],
    f"{REDIRECT}/",
    f"{REDIRECT}x",
    f"{REDIRECT}/../evil",
    f"{REDIRECT}?evil=1",
    f"{REDIRECT}#evil",
    f"{REDIRECT} ",
    f" {REDIRECT}",
    REDIRECT.upper(),
    REDIRECT.replace("/connection", "/Connection"),
    REDIRECT.replace("/connection", "//connection"),
    REDIRECT.replace("/connection", "%2Fconnection"),
    REDIRECT.replace("connection", "%63onnection"),
    REDIRECT.replace("https", "http"),
    REDIRECT.replace(".com", ".com:443"),
    REDIRECT.replace(".com", ".com:8443"),
    REDIRECT.replace(".com", ".com."),
    REDIRECT.replace(".com", ".com.evil.example"),
    REDIRECT.replace("app.", "evil@app."),
    REDIRECT.replace("https://", "https://app.syncaroo.com@evil.example/"),
    REDIRECT.replace("https:", ""),
    REDIRECT.replace("https:", "javascript:evil"),
    f"{REDIRECT}\r\nX-Evil: 1",
    f"https://evil.example/?{REDIRECT}",
    "",
]


@ON_SQLITE
async def test_who_comes_from_elsewhere_is_sent_nowhere(gateway: Gateway) -> None:
    """T-OP-REDIRECT: the whole text or none of it, also for somebody who is logged in."""
    await gateway.log_in(authorize())
    for redirect_uri in ELSEWHERE:
        assert await refuses(gateway, authorize(redirectUri=redirect_uri))
    for second in ("https://evil.example", REDIRECT):
        assert await refuses(gateway, f"{authorize()}&redirectUri={quote(second, safe='')}")
    assert await refuses(gateway, f"{authorize()}&redirect_uri={quote('https://evil.example', safe='')}")
    assert (await gateway.http.get(authorize(redirectUri=REDIRECT))).status == 200
    assert await gateway.rows(ConnectionRow) == []


ODD: list[dict[str, str]] = [
    {"responseType": "token"},
    {"responseType": "code token"},
    {"responseType": ""},
    {"clientId": "evil"},
    {"clientId": ""},
    {"connectionId": ""},
    {"connectionId": "9" * 20},
    {"connectionId": "9" * 3000},
    {"connectionId": "1e3"},
    {"connectionId": "0x63"},
    {"connectionId": " 99"},
    {"connectionId": "-99"},
    {"state": "evil\0"},
    {"state": "s" * 5000},
    {"codeChallenge": "x"},
]


@ON_SQLITE
async def test_odd_parameters_are_a_page(gateway: Gateway) -> None:
    """T-OP-PARAMS: each on a valid client and redirect, too. What is unknown is ignored, as RFC 6749 §3.1 asks."""
    await gateway.log_in(authorize())
    for odd in ODD:
        assert await refuses(gateway, authorize(**odd))
    for name in ("connectionId", "clientId", "redirectUri", "responseType"):
        kept = [part for part in authorize().partition("?")[2].split("&") if not part.startswith(name)]
        assert await refuses(gateway, f"{AUTHORIZE}?{'&'.join(kept)}")
        again = next(part for part in authorize().partition("?")[2].split("&") if part.startswith(name))
        assert await refuses(gateway, f"{authorize()}&{again}")
    assert (await gateway.http.get(authorize(utm_source="x", prompt="none"))).status == 200


# --- forms ---------------------------------------------------------------------------------------------------------


async def consent_form(gateway: Visitor, address: str) -> Form:
    return first_form(await (await gateway.http.get(address)).text())


async def decide(gateway: Visitor, address: str, form: Form, decision: str = "allow") -> ClientResponse:
    data = form.fields | {"decision": decision}
    return await gateway.http.post(address, data=data, allow_redirects=False)


async def test_a_form_counts_in_the_session_that_it_was_shown_in(gateway: Gateway) -> None:
    """T-OP-CSRF: login and consent; a consent of user A sent in B's session, in another browser or in the same."""
    address = authorize()
    fields = {"login": "ada", "password": "ada-password", "csrf": "x"}
    await gateway.http.get(address)
    for forged in (fields, {name: fields[name] for name in ("login", "password")}):
        assert (await gateway.http.post(address, data=forged, allow_redirects=False)).status == 403
    await gateway.log_in(address, "ada")
    of_ada = await consent_form(gateway, address)
    for csrf in ("", "x", "ü" * 50):
        assert (await gateway.http.post(address, data={"decision": "allow", "csrf": csrf})).status == 403

    gateway.http.session.cookie_jar.clear()
    assert (await gateway.log_in(address, "bob")).status == 303
    for decision in ("allow", "deny"):
        assert (await decide(gateway, address, of_ada, decision)).status == 403
    assert await gateway.rows(ConnectionRow) == []
    assert (await decide(gateway, address, await consent_form(gateway, address))).status == 303


@ON_SQLITE
async def test_no_page_is_framed_kept_or_told_on(gateway: Gateway) -> None:
    """T-OP-CSRF: a page under another one gets no clicks; looking changes nothing."""
    pages = [await gateway.http.get(authorize()), await gateway.http.get(authorize("x"))]
    await gateway.log_in(authorize())
    pages.append(await gateway.http.get(f"{authorize()}&decision=allow"))
    pages.append(await gateway.submit(authorize(), decision="deny"))
    for answer in pages:
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
    assert await gateway.rows(ConnectionRow) == []


async def test_a_page_that_is_sent_many_times_has_one_code(gateway: Gateway) -> None:
    """T-OP-CSRF: double submit. Whichever answer the browser follows, it is that code; used, it is not given again."""
    address = authorize()
    await gateway.log_in(address)
    form = await consent_form(gateway, address)
    answers = await asyncio.gather(*(decide(gateway, address, form) for _ in range(AT_ONCE)))
    (location,) = {answer.headers["Location"] for answer in answers}
    assert len(await gateway.rows(CodeRow)) == 1

    status, pair = await gateway.redeem(query_of(location)["code"])
    assert status == 200
    assert await is_a_page_and_no_redirect(await decide(gateway, address, form))
    assert (await gateway.check(pair["accessToken"])).status == 200, "nothing was presented twice"
    another = await decide(gateway, address, await consent_form(gateway, address))
    assert another.headers["Location"] != location


async def test_of_two_who_want_one_connection_one_has_it(gateway: Gateway) -> None:
    """T-OP-SQUAT: at once, and for good."""
    address = authorize()
    browsers = []
    for login in ("ada", "bob"):
        gateway.http.session.cookie_jar.clear()
        await gateway.log_in(address, login)
        form = await consent_form(gateway, address)
        browsers.append(({cookie.key: cookie.value for cookie in gateway.http.session.cookie_jar}, form))
    gateway.http.session._cookie_jar = DummyCookieJar()  # each request brings its own

    async def click(cookies: dict[str, str], form: Form) -> int:
        header = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        data = form.fields | {"decision": "allow", "once": secrets.token_urlsafe(8)}
        async with gateway.http.post(address, data=data, headers=header, allow_redirects=False) as answer:
            return answer.status

    statuses = await asyncio.gather(*(click(*browsers[number % 2]) for number in range(AT_ONCE)))
    assert Counter(statuses) == {303: AT_ONCE // 2, 400: AT_ONCE // 2}
    (owner,) = {row.user_id for row in await gateway.rows(ConnectionRow)}
    assert {row.user_id for row in await gateway.rows(CodeRow)} == {owner}

    await gateway.admin("DELETE", "connections/99")
    assert await click(*browsers[0 if owner == "2" else 1]) == 400, "revoked is not given up"
    await gateway.admin("DELETE", f"users/{owner}")
    assert await click(*browsers[0 if owner == "2" else 1]) == 400, "nor is a user who is gone"


# --- codes ---------------------------------------------------------------------------------------------------------


async def test_of_many_redemptions_at_once_one_wins_and_what_it_got_ends(gateway: Gateway) -> None:
    """T-OP-CODE: one winner, and since the code was presented again, not even that one for long."""
    code = await gateway.code()
    answers = await asyncio.gather(*(gateway.redeem(code) for _ in range(AT_ONCE)))
    assert Counter(status for status, _ in answers) == {200: 1, 400: AT_ONCE - 1}
    (pair,) = [pair for status, pair in answers if status == 200]
    assert [row.revoked_at is not None for row in await gateway.rows(FamilyRow)] == [True]
    assert (await gateway.refresh(pair["refreshToken"]))[1]["error"] == "invalid_grant"


async def test_a_code_is_bound_to_client_connection_and_time(gateway: Gateway) -> None:
    """T-OP-CODE"""
    code = await gateway.code()
    for column, wrong, right in (
        ("client_id", "another client", CLIENT_ID),
        ("redirect_uri", "https://app.syncaroo.com/another", REDIRECT),
        ("expires_at", datetime.now(UTC), datetime.now(UTC) + timedelta(minutes=5)),
    ):
        await gateway.change(CodeRow, **{column: wrong})
        assert (await gateway.redeem(code, redirectUri=REDIRECT))[1]["error"] == "invalid_grant", column
        await gateway.change(CodeRow, **{column: right})
    _, pair = await gateway.redeem(code)
    await gateway.connect(100)
    assert (await gateway.check(pair["accessToken"], 100)).status == 403


VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
PKCE = {"codeChallenge": challenge_of(VERIFIER), "codeChallengeMethod": "S256"}


async def test_a_challenge_is_enforced_and_a_verifier_needs_one(gateway: Gateway) -> None:
    """T-OP-PKCE"""
    code = await gateway.code(99, "ada", **PKCE)
    for wrong in ({}, {"codeVerifier": ""}, {"codeVerifier": VERIFIER[:-1]}, {"codeVerifier": PKCE["codeChallenge"]}):
        assert (await gateway.redeem(code, **wrong))[1]["error"] == "invalid_grant"
    challenged = f"{PKCE['codeChallenge']}:{code}"
    assert (await gateway.redeem(challenged))[1]["error"] == "invalid_grant"
    assert (await gateway.redeem(code, code_verifier=VERIFIER))[0] == 200, "and none of it used the code up"
    (family,) = await gateway.rows(FamilyRow)
    assert family.revoked_at is None
    assert (await gateway.redeem(code, codeVerifier=VERIFIER))[1]["error"] == "invalid_grant"
    assert (await gateway.rows(FamilyRow))[0].revoked_at is not None, "presented twice"

    plain = await gateway.code(100)
    assert (await gateway.redeem(plain, codeVerifier=VERIFIER))[1]["error"] == "invalid_grant"
    assert (await gateway.redeem(plain))[0] == 200


@ON_SQLITE
async def test_only_s256_is_a_challenge(gateway: Gateway) -> None:
    """T-OP-PKCE: `plain`, which is also what a missing method means, shows the verifier to whoever sees the address."""
    for wrong in (
        {"codeChallenge": VERIFIER},
        {"codeChallenge": VERIFIER, "codeChallengeMethod": "plain"},
        {"codeChallenge": VERIFIER, "codeChallengeMethod": "s256"},
        {"codeChallengeMethod": "S256"},
        {"codeChallenge": "", "codeChallengeMethod": "S256"},
        {"codeChallenge": f"{VERIFIER}=", "codeChallengeMethod": "S256"},
        {"codeChallenge": ":" * 43, "codeChallengeMethod": "S256"},
    ):
        assert await refuses(gateway, authorize(**wrong))


# --- clients -------------------------------------------------------------------------------------------------------


async def said(answer: ClientResponse) -> tuple[int, str, str]:
    return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_every_wrong_client_gets_the_same_answer_and_uses_nothing_up(gateway: Gateway) -> None:
    """T-OP-CLIENT"""
    code = await gateway.code()
    right = {"clientId": CLIENT_ID, "clientSecret": NEW_SECRET}
    grant = {"grantType": "authorization_code", "code": code}
    wrong: list[dict[str, str]] = [
        right | {"clientSecret": "wrong"},
        right | {"clientSecret": ""},
        right | {"clientSecret": NEW_SECRET[:-1]},
        right | {"clientSecret": "ü\x01"},
        right | {"clientId": "unknown"},
        right | {"clientId": CLIENT_ID.upper()},
        {"clientId": CLIENT_ID},
        {"clientSecret": NEW_SECRET},
        {},
    ]
    answers = {await said(await gateway.http.post(TOKEN, data=grant | one)) for one in wrong}
    answers.add(await said(await gateway.http.post(TOKEN, data=grant, params=right)))
    for pair in ("x:y", f"{CLIENT_ID}:wrong", f"unknown:{NEW_SECRET}", CLIENT_ID):
        header = {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
        answers.add(await said(await gateway.http.post(TOKEN, data=grant, headers=header)))
    ((status, content_type, _),) = answers
    assert (status, content_type) == (401, "application/json")
    assert (await gateway.redeem(code))[0] == 200


@ON_SQLITE
async def test_wrong_secrets_are_throttled_at_once_and_for_a_while(gateway: Gateway) -> None:
    """T-OP-CLIENT: answered without a look at the secret, so that a right guess does not show either."""
    code = await gateway.code()
    guesses = await asyncio.gather(*(gateway.redeem(code, clientSecret=str(guess)) for guess in range(CLIENT.wrong)))
    assert {status for status, _ in guesses} == {401}
    grant = {"clientId": CLIENT_ID, "clientSecret": NEW_SECRET, "grantType": "authorization_code", "code": code}
    async with gateway.http.post(TOKEN, data=grant) as answer:
        assert (answer.status, (await answer.json())["error"]) == (429, "temporarily_unavailable")
        assert answer.headers["Retry-After"] == "1"
    gateway.clock.now += CLIENT.first
    assert (await gateway.redeem(code))[0] == 200


# --- refresh tokens ------------------------------------------------------------------------------------------------


async def test_of_many_refreshes_at_once_all_get_the_one_successor(gateway: Gateway) -> None:
    """T-OP-REFRESH: a lost answer costs nothing, and makes no second line of tokens."""
    first = (await gateway.connect())["refreshToken"]
    answers = await asyncio.gather(*(gateway.refresh(first) for _ in range(AT_ONCE)))
    assert {status for status, _ in answers} == {200}
    (second,) = {pair["refreshToken"] for _, pair in answers}
    await asyncio.gather(*(gateway.refresh(token) for token in (second,) * 10))
    (row,) = await gateway.rows(FamilyRow)
    assert (row.generation, row.revoked_at) == (3, None)


async def test_reuse_revokes_the_family_and_is_told(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    """T-OP-REFRESH: the window is 30 s after the successor was used (CONTRACT §3.2)."""
    first = await gateway.connect()
    _, second = await gateway.refresh(first["refreshToken"])
    _, third = await gateway.refresh(second["refreshToken"])
    await gateway.change(FamilyRow, rotated_at=datetime.now(UTC) - timedelta(seconds=31))
    answers = await asyncio.gather(*(gateway.refresh(first["refreshToken"]) for _ in range(AT_ONCE)))
    assert {pair["error"] for _, pair in answers} == {"invalid_grant"}
    assert (await gateway.refresh(third["refreshToken"]))[1]["error"] == "invalid_grant"
    printed = capsys.readouterr().out
    assert printed.count("oauth.refresh_token_reused") == 1
    assert not any(token in printed for pair in (first, second, third) for token in pair.values() if len(token) > 30)


async def test_a_refresh_token_needs_its_client_and_its_time(gateway: Gateway) -> None:
    """T-OP-REFRESH"""
    token = (await gateway.connect())["refreshToken"]
    other = {"clientId": "other", "clientSecret": NEW_SECRET}
    assert (await gateway.exchange(grantType="refresh_token", refreshToken=token, **other))[0] == 401
    await gateway.change(FamilyRow, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert (await gateway.refresh(token))[1]["error"] == "invalid_grant"


# --- answers -------------------------------------------------------------------------------------------------------


@ON_SQLITE
async def test_every_answer_of_the_token_endpoint_has_its_form(gateway: Gateway) -> None:
    """T-OP-CONTRACT"""
    code = await gateway.code()
    good = {"clientId": CLIENT_ID, "clientSecret": NEW_SECRET, "grantType": "authorization_code", "code": code}
    sent: list[tuple[int, dict[str, Any]]] = [
        (200, {"data": good}),
        (400, {"data": good}),
        (401, {"data": good | {"clientSecret": "wrong"}}),
        (400, {"json": good}),
        (400, {"data": "x", "headers": {"Content-Type": "text/plain"}}),
        (400, {"data": b"", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}),
    ]
    for status, request in sent:
        async with gateway.http.post(TOKEN, **request) as answer:
            assert (answer.status, answer.content_type) == (status, "application/json")
            assert answer.headers["Cache-Control"] == "no-store"
            names = {"accessToken", "expires", "refreshToken"} if status == 200 else {"error", "errorDescription"}
            body = await answer.json()
            assert set(body) == names
        if status == 200:
            datetime.strptime(body["expires"], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    assert (await gateway.http.get(TOKEN, params=good)).status == 405


async def test_check_tells_the_user_s_own_listings_to_their_own_token(gateway: Gateway) -> None:
    """T-OP-CHECK"""
    await gateway.admin("PUT", "users/2/locations", {"7": {"ID": "7", "name": "Bob's", "status": "active"}})
    adas, bobs = (await gateway.connect())["accessToken"], (await gateway.connect(100, "bob"))["accessToken"]
    assert set((await (await gateway.check(bobs, 100)).json())["locations"]) == {"7"}
    assert set((await (await gateway.check(adas)).json())["locations"]) == set(LOCATIONS)
    assert (await gateway.check(bobs)).status == 403
    assert (await gateway.check("x")).status == 401
    for name in ("access_token", "accessToken"):
        assert (await gateway.http.get(f"/check_connection?connectionId=99&{name}={adas}")).status == 401


# --- the end -------------------------------------------------------------------------------------------------------


async def test_a_user_who_is_erased_ends_with_tokens_codes_and_pages(gateway: Gateway) -> None:
    """T-OP-REVOKE"""
    address = authorize()
    pair, code = await gateway.connect(), await gateway.code()
    form = await consent_form(gateway, address)
    assert (await gateway.admin("DELETE", "users/1"))[0] == 204
    assert (await decide(gateway, address, form)).status == 401
    assert (await gateway.check(pair["accessToken"])).status == 401
    assert (await gateway.refresh(pair["refreshToken"]))[1]["error"] == "invalid_grant"
    assert (await gateway.redeem(code))[1]["error"] == "invalid_grant"
    await gateway.add_user()
    assert (await decide(gateway, address, form)).status == 401, "the same name, and not the same session"


async def test_a_new_password_ends_the_sessions_and_leaves_syncaroo_connected(gateway: Gateway) -> None:
    """T-OP-REVOKE: the connection was the user's wish and is ended where connections are."""
    pair = await gateway.connect()
    form = await consent_form(gateway, authorize())
    assert form.decisions
    assert (await gateway.admin("PUT", "users/1", {"login": "ada"}))[0] == 200
    assert (await consent_form(gateway, authorize())).decisions, "the same password, the same session"
    assert (await gateway.admin("PUT", "users/1", {"password": "another"}))[0] == 200
    assert (await decide(gateway, authorize(), form)).status == 401
    assert (await consent_form(gateway, authorize())).visible == ["text", "password"]
    assert (await gateway.refresh(pair["refreshToken"]))[0] == 200
    assert (await gateway.admin("DELETE", "connections/99"))[0] == 204
    assert (await gateway.check(pair["accessToken"])).status == 401
