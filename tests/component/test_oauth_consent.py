"""ingress.oauth.consent: a user logs in, sees what is shared, allows or denies (CONTRACT §3.1)."""

from collections.abc import AsyncIterator

import pytest

from schemas.tables import CodeRow, ConnectionRow
from tests.component.gateway_parts import (
    LOCATIONS,
    OTHER_REDIRECT,
    REDIRECT,
    Gateway,
    authorize,
    first_form,
    query_of,
    running,
)
from tests.guide import transcript


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Gateway]:
    async with running(database_url) as gateway:
        await gateway.add_user(locations=LOCATIONS)
        yield gateway


async def test_login_then_consent_then_back_with_a_code(gateway: Gateway) -> None:
    address = authorize()
    login = await gateway.http.get(address)
    form = first_form(await login.text())
    assert login.status == 200
    assert sorted(form.visible) == ["password", "text"]

    there = await gateway.log_in(address)
    assert (there.status, query_of(there.headers["Location"])) == (303, query_of(address))
    assert there.headers["Location"].startswith("/api/oauth/authorize?")

    consent = await gateway.http.get(there.headers["Location"])
    text = await consent.text()
    assert first_form(text).decisions == ["allow", "deny"]
    assert "ada" in text
    assert "Demo Meeting Room - London" in text
    assert all(location["name"] in text for location in LOCATIONS.values())

    back = await gateway.submit(address, decision="allow")
    assert back.status == 303
    assert back.headers["Location"].startswith(f"{REDIRECT}?")
    assert list(query_of(back.headers["Location"])) == list(transcript("authorize-return").query)
    assert [row.state for row in await gateway.rows(ConnectionRow)] == ["authorised"]


async def test_the_code_is_nowhere_in_clear(gateway: Gateway) -> None:
    code = await gateway.code()
    assert code not in repr(await gateway.rows(CodeRow))


async def test_denying_tells_syncaroo_and_keeps_nothing(gateway: Gateway) -> None:
    address = authorize(state="s & t")
    await gateway.log_in(address)
    back = await gateway.submit(address, decision="deny")
    assert back.status == 303
    assert query_of(back.headers["Location"]) == {"connectionId": "99", "error": "access_denied", "state": "s & t"}
    assert await gateway.rows(ConnectionRow) == []


async def test_the_redirect_keeps_its_own_query_and_the_state(gateway: Gateway) -> None:
    address = authorize(redirectUri=OTHER_REDIRECT, state="%2F+ü")
    await gateway.log_in(address)
    back = await gateway.submit(address, decision="allow")
    query = query_of(back.headers["Location"])
    assert (query["kept"], query["connectionId"], query["state"]) == ("1", "99", "%2F+ü")
    assert "https://app.syncaroo.com" in (await gateway.http.get(address)).headers["Content-Security-Policy"]


async def test_a_wrong_address_is_a_page_and_never_a_redirect(gateway: Gateway) -> None:
    """T-OP-PARAMS"""
    wrong = [
        {"clientId": "someone"},
        {"redirectUri": "https://evil.example/connection"},
        {"redirectUri": f"{REDIRECT}/"},
        {"responseType": "token"},
        {"state": "a\0b"},
    ]
    numbers = ["0", "-1", "9223372036854775808", "\u0663", "", "99&connection_id=100", "99&connectionId=99"]
    addresses = [authorize(**one) for one in wrong]
    addresses += [authorize().replace("connectionId=99", f"connectionId={number}") for number in numbers]
    for address in addresses:
        for method in ("GET", "POST"):
            answer = await gateway.http.request(method, address, allow_redirects=False)
            assert (answer.status, answer.content_type) == (400, "text/html"), address


async def test_snake_case_is_taken(gateway: Gateway) -> None:
    snake = f"/api/oauth/authorize?connection_id=99&client_id=xyz1243&redirect_uri={REDIRECT}&response_type=code"
    assert (await gateway.http.get(snake)).status == 200


async def test_another_user_s_connection_is_refused(gateway: Gateway) -> None:
    """T-OP-SQUAT"""
    await gateway.add_user("2", "bob")
    await gateway.code(login="ada")
    gateway.http.session.cookie_jar.clear()
    await gateway.log_in(authorize(), "bob")
    form = first_form(await (await gateway.http.get(authorize(100))).text())
    shown = await gateway.http.get(authorize(), allow_redirects=False)
    posted = await gateway.http.post(authorize(), data=form.fields | {"decision": "allow"}, allow_redirects=False)
    for answer in (shown, posted):
        text = await answer.text()
        assert (answer.status, answer.content_type) == (400, "text/html")
        assert "belongs to another account" in text
        assert "signed in as <strong><bdi>bob</bdi></strong>" in text, "who may have taken the wrong account"
        assert 'href="/account"' in text, "where one signs out"
    assert {row.user_id for row in await gateway.rows(ConnectionRow)} == {"1"}


async def test_a_revoked_connection_may_be_authorised_again_by_its_user(gateway: Gateway) -> None:
    await gateway.connect()
    assert (await gateway.admin("DELETE", "connections/99"))[0] == 204
    pair = await gateway.connect()
    assert (await gateway.check(pair["accessToken"])).status == 200


async def test_an_erased_user_s_connection_is_said_to_have_ended(gateway: Gateway) -> None:
    """To the same person with a new account, too: Syncaroo gives another number."""
    await gateway.connect()
    await gateway.admin("DELETE", "users/1")
    await gateway.add_user()
    await gateway.log_in(authorize())
    form = first_form(await (await gateway.http.get(authorize(100))).text())
    shown = await gateway.http.get(authorize(), allow_redirects=False)
    posted = await gateway.http.post(authorize(), data=form.fields | {"decision": "allow"}, allow_redirects=False)
    for answer in (shown, posted):
        assert answer.status == 400
        text = await answer.text()
        assert "This connection has ended for good. Add the integration in Syncaroo again." in text
        assert "another account" not in text


async def test_a_form_of_another_session_is_refused(gateway: Gateway) -> None:
    stale = first_form(await (await gateway.http.get(authorize())).text())
    gateway.http.session.cookie_jar.clear()
    fields = stale.fields | {"login": "ada", "password": "ada-password"}
    assert (await gateway.http.post(authorize(), data=fields, allow_redirects=False)).status == 403
    await gateway.log_in(authorize())
    for csrf in ({}, stale.fields):
        forged = await gateway.http.post(authorize(), data={**csrf, "decision": "allow"}, allow_redirects=False)
        assert forged.status == 403
    assert await gateway.rows(ConnectionRow) == []


async def test_an_unknown_decision_or_none_logged_in_decides_nothing(gateway: Gateway) -> None:
    nobody = await gateway.http.post(authorize(), data={"decision": "allow"}, allow_redirects=False)
    assert nobody.status == 401
    await gateway.log_in(authorize())
    assert (await gateway.submit(authorize(), decision="perhaps")).status == 400
    assert await gateway.rows(ConnectionRow) == []


async def test_wrong_passwords_look_alike_and_the_sixth_must_wait(gateway: Gateway) -> None:
    unknown = await gateway.log_in(authorize(), "nobody")
    pages = []
    for _ in range(5):
        answer = await gateway.log_in(authorize(), password="wrong")
        assert answer.status == 401
        pages.append(await answer.text())
    assert (unknown.status, first_form(await unknown.text()).visible) == (401, first_form(pages[0]).visible)
    sixth = await gateway.log_in(authorize())  # even the right one
    assert (sixth.status, sixth.headers["Retry-After"]) == (429, "30")
    assert "password" in first_form(await sixth.text()).fields


async def test_an_erased_user_is_logged_out(gateway: Gateway) -> None:
    await gateway.log_in(authorize())
    await gateway.admin("DELETE", "users/1")
    assert "password" in first_form(await (await gateway.http.get(authorize())).text()).fields


async def test_pages_say_what_browsers_may_do_with_them(gateway: Gateway) -> None:
    answer = await gateway.http.get(authorize())
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


async def test_what_pages_are_made_of_is_kept_for_good_under_its_own_hash_alone(gateway: Gateway) -> None:
    page = await (await gateway.http.get(authorize())).text()
    style = page.partition('rel="stylesheet" href="')[2].partition('"')[0]
    assert style.startswith("/static/style.css?v=")
    for address, kept in ((style, True), (f"{style[:-1]}x", False), ("/static/style.css", False)):
        answer = await gateway.http.get(address)
        assert (answer.status, answer.content_type) == (200, "text/css")
        assert ("immutable" in answer.headers["Cache-Control"]) == kept, address
    assert (await gateway.http.get("/static/base.html")).status == 404


async def test_of_many_listings_the_first_are_shown_and_all_are_counted(gateway: Gateway) -> None:
    rooms = [{"ID": str(n), "name": f"Room {n}.", "status": "active", "type": "office"} for n in range(25)]
    many = {str(n): {"ID": str(n), "name": f"Place {n}.", "status": "active", "resources": rooms} for n in range(70)}
    await gateway.admin("PUT", "users/1/locations", many)
    await gateway.log_in(authorize())
    text = await (await gateway.http.get(authorize())).text()
    # Those of before are marked deleted: they come last, and do not count.
    assert f"70 locations with {70 * 25} resources" in text
    assert text.count("Place ") == 50
    assert text.count("Room ") == 50 * 20
    assert text.count("and 5 more") == 50
    assert "and 20 more locations" in text


async def test_of_nothing_to_share_no_numbers_are_told(gateway: Gateway) -> None:
    await gateway.add_user("2", "bob")
    await gateway.log_in(authorize(), "bob")
    text = await (await gateway.http.get(authorize())).text()
    assert "states of your listings;" in text
    assert "0 locations" not in text
    assert "no listings yet" in text
    await gateway.admin("PUT", "users/2/locations", LOCATIONS)
    await gateway.admin("PUT", "users/2/locations", {})
    assert "states of your listings;" in await (await gateway.http.get(authorize())).text()


async def test_names_are_escaped(gateway: Gateway) -> None:
    await gateway.admin("PUT", "users/1/locations", {"1": {"ID": "1", "name": "<script>", "status": "active"}})
    await gateway.log_in(authorize())
    text = await (await gateway.http.get(authorize())).text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


async def test_a_cookie_that_is_not_ours_is_ignored(gateway: Gateway) -> None:
    answer = await gateway.http.get(authorize(), headers={"Cookie": "gateway=gAAAAA-nonsense\xff"})
    assert answer.status == 200
