"""/connect and /confirm in a browser's hands: login, the way to Syncaroo and back (RELIABILITY §3.10)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.fernet import Fernet
from pydantic import SecretStr

from common.broker.outgoing import Outgoing
from common.clock import monotonic_seconds
from common.codec import decode
from common.crypto import TokenCipher
from common.errors import BrokerUnavailable, StoreUnavailable
from common.settings import AdminSettings, ClientSettings, KeySettings, SiteSettings, SyncarooSettings
from common.store.engine import Store
from ingress.connect.handler import STATUS_PATH, ConnectHandler
from ingress.connect.login import AdminLogin
from ingress.oauth.throttle import Throttle
from ingress.pages.render import setup_pages
from ingress.problems import problem_middleware
from schemas.messages import CodeReceived
from schemas.tables import ConnectAttemptRow, table_of

TOKEN = "an admin's token"
SITE = "http://gateway.test"
SYNCAROO = "https://app.syncaroo.test"
_attempt = table_of(ConnectAttemptRow)

Browser = TestClient[web.Request, web.Application]


class Broker:
    """Keeps what it is given; refuses while `down`."""

    def __init__(self) -> None:
        self.down = False
        self.messages: list[Outgoing] = []

    async def publish(self, message: Outgoing) -> None:
        if self.down:
            raise BrokerUnavailable("broker: as ordered")
        self.messages.append(message)


class Site:
    """The pages over a real store, and what a test does to it."""

    def __init__(self, database_url: str) -> None:
        self.store = Store(database_url)
        self.broker = Broker()
        self.key = Fernet.generate_key().decode()
        self.browsers: list[Browser] = []
        self.tokens = [f"alice:{TOKEN}", "another"]

    def _made(self, store: Store) -> web.Application:
        app = web.Application(middlewares=[problem_middleware])
        site, keys = SiteSettings(site_uri=SITE), KeySettings(secret_keys=(SecretStr(self.key),))
        setup_pages(app, site, keys)
        syncaroo = SyncarooSettings(syncaroo_base_url=SYNCAROO)
        ourselves = ClientSettings(syncaroo_client_id="xxyyzz", syncaroo_client_secret=SecretStr("s3cret"))
        admin = AdminSettings(admin_token=tuple(map(SecretStr, self.tokens)))
        login = AdminLogin(admin, Throttle(monotonic_seconds))
        app.add_routes(ConnectHandler(store, self.broker, site, keys, syncaroo, ourselves, login).routes())
        return app

    async def start(self) -> None:
        self.server = TestServer(self._made(self.store))
        await self.server.start_server()

    async def restart(self, *tokens: str) -> None:
        """With these as ADMIN_TOKEN."""
        await self.server.close()
        self.tokens = [*tokens]
        await self.start()

    async def browser(self, before: Browser | None = None) -> Browser:
        """Somebody new, without cookies; or who was there before a restart."""
        browser: Browser = TestClient(self.server, cookie_jar=None if before is None else before.session.cookie_jar)
        self.browsers.append(browser)
        return browser

    async def admin(self) -> Browser:
        """Somebody logged in."""
        browser = await self.browser()
        assert (await log_in(browser, TOKEN)).status == 303
        return browser

    async def close(self) -> None:
        for browser in self.browsers:
            await browser.session.close()
        await self.server.close()
        await self.store.close()

    def codes(self) -> list[tuple[str, str]]:
        """Attempts and codes that were published."""
        cipher = TokenCipher([self.key])
        messages = [decode(one.body, CodeReceived) for one in self.broker.messages]
        return [(one.attempt_id, cipher.open(one.sealed_code).decode()) for one in messages]

    async def change(self, **values: Any) -> None:
        """Change all attempts; a timedelta is taken from the store's now."""
        async with self.store.transaction() as transaction:
            now = await transaction.now()
            real = {name: now + value if isinstance(value, timedelta) else value for name, value in values.items()}
            await transaction.execute(_attempt.update().values(real))


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    made = Site(database_url)
    await made.start()
    yield made
    await made.close()


async def get(browser: Browser, path: str, **query: str) -> ClientResponse:
    return await browser.get(path, params=query, allow_redirects=False)


async def log_in(browser: Browser, token: str) -> ClientResponse:
    page = await (await get(browser, "/connect")).text()
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found
    return await browser.post("/connect", data={"csrf": found[1], "password": token}, allow_redirects=False)


async def begin(browser: Browser) -> str:
    """To Syncaroo; the state."""
    answer = await get(browser, "/connect")
    assert answer.status == 302
    return dict(parse_qsl(urlsplit(answer.headers["Location"]).query))["state"]


async def test_an_admin_logs_in_and_is_sent_to_syncaroo(site: Site) -> None:
    """T-CB-FIXED: where to comes from settings alone, whatever the request claims."""
    browser = await site.browser()
    page = await (await get(browser, "/connect")).text()
    form = page[page.index("<form") : page.index("</form>")]
    assert re.findall(r'<input [^>]*type="(\w+)"', form) == ["hidden", "password"]
    assert (await log_in(browser, TOKEN)).headers["Location"] == "/connect"
    evil = {"Host": "evil.test", "X-Forwarded-Host": "evil.test"}
    answer = await browser.get("/connect?redirectUri=https://evil.test&clientId=x", headers=evil, allow_redirects=False)
    location = urlsplit(answer.headers["Location"])
    assert answer.status == 302
    assert f"{location.scheme}://{location.netloc}{location.path}" == f"{SYNCAROO}/api/authorize"
    query = parse_qsl(location.query, keep_blank_values=True)
    assert query[:4] == [
        ("clientId", "xxyyzz"),
        ("redirectUri", f"{SITE}/confirm"),
        ("responseType", "code"),
        ("scope", ""),
    ]
    assert [name for name, _ in query[4:]] == ["state"]


async def test_the_login_page_may_lead_on_to_syncaroo(site: Site) -> None:
    """Browsers hold form-action against every redirect that follows the form."""
    answer = await get(await site.browser(), "/connect")
    assert f"form-action 'self' {SYNCAROO}" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"


async def test_tokens_cannot_be_guessed_at_leisure(site: Site) -> None:
    browser = await site.browser()
    for _ in range(5):
        assert (await log_in(browser, "wrong")).status == 401
    answer = await log_in(browser, TOKEN)
    assert answer.status == 429
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize("token", ["", "alice", f"alice:{TOKEN}", "ä", TOKEN + " "])
async def test_only_the_token_itself_is_taken(site: Site, token: str) -> None:
    assert (await log_in(await site.browser(), token)).status == 401


async def test_an_operator_s_session_ends_with_the_token_that_began_it(site: Site) -> None:
    """Also for somebody who kept the cookie, and for what they had begun."""
    browser = await site.admin()
    state = await begin(browser)
    await site.restart("another", f"alice:{TOKEN}")
    browser = await site.browser(browser)
    assert (await get(browser, "/connect")).status == 302, "one more or less of the others ends nothing"
    for others in (["alice:a new one", "another"], [f"bob:{TOKEN}"]):
        await site.restart(*others)
        browser = await site.browser(browser)
        assert (await get(browser, "/connect")).status == 200, "the login page"
        assert (await get(browser, "/confirm", code="c", state=state)).status == 400
    assert site.codes() == []


async def test_a_login_without_our_form_is_refused(site: Site) -> None:
    browser = await site.browser()
    answer = await browser.post("/connect", data={"password": TOKEN}, allow_redirects=False)
    assert answer.status == 400
    assert (await get(browser, "/connect")).status == 200


async def test_a_code_goes_sealed_to_the_token_worker(site: Site) -> None:
    """T-SECRETS-AMQP"""
    browser = await site.admin()
    answer = await get(browser, "/confirm", code="the code", state=await begin(browser))
    page = await answer.text()
    assert answer.status == 200
    assert '<meta http-equiv="refresh"' in page
    assert "the code" not in page
    assert [code for _, code in site.codes()] == ["the code"]
    assert b"the code" not in site.broker.messages[0].body
    assert site.broker.messages[0].routing_key.startswith("token.")


async def test_reloading_shows_the_outcome_and_sends_nothing_twice(site: Site) -> None:
    """T-CB-DOUBLE"""
    browser = await site.admin()
    state = await begin(browser)
    for _ in range(3):
        await get(browser, "/confirm", code="c", state=state)
    assert len(site.codes()) == 1
    for outcome, text in (("active", "Connected"), ("refused", "Start again"), ("failed", "Start again")):
        await site.change(outcome=outcome, detail="<b>HTTP 400</b>" if outcome == "refused" else None)
        page = await (await get(browser, "/confirm", code="c", state=state)).text()
        assert text in page
        assert "http-equiv" not in page
        assert "<b>" not in page
    assert len(site.codes()) == 1


async def test_how_an_attempt_stands_is_told_to_its_browser_alone(site: Site) -> None:
    """T-CB-STATE: what the open page asks."""
    mine, other = await site.admin(), await site.admin()
    state = await begin(mine)
    page = await (await get(mine, "/confirm", code="c", state=state)).text()
    status_path = unescape(page.partition('data-follow="')[2].partition('"')[0])
    answer = await get(mine, status_path, code="c", state=state)
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
    view = await answer.json()
    assert view.keys() == {"title", "text", "mood", "detail", "follow", "again"}
    assert (view["title"], view["follow"] is None) == ("Connecting to Syncaroo", False)
    await site.change(outcome="failed", detail="HTTP 500")
    view = await (await get(mine, status_path, code="c", state=state)).json()
    assert (view["mood"], view["detail"], view["follow"], view["again"]) == ("bad", "HTTP 500", None, True)
    for browser, wrong in ((other, state), (await site.browser(), state), (mine, ""), (mine, state + "x")):
        assert (await get(browser, status_path, code="c", state=wrong)).status == 400
    assert (await get(mine, status_path, state=state)).status == 400
    assert (await get(mine, status_path, state=state, error="access_denied")).status == 400
    assert (await mine.get(f"{status_path}?code=c&state={state}&state={state}")).status == 400
    assert len(site.codes()) == 1


async def test_a_state_works_only_for_its_browser_and_its_time(site: Site) -> None:
    """T-CB-STATE"""
    mine, other, nobody = await site.admin(), await site.admin(), await site.browser()
    state = await begin(mine)
    foreign = await begin(other)
    head, _, tail = state.rpartition(".")
    for wrong in (
        "",
        "x",
        foreign,
        head,
        state[:-2],
        f"{head}.{tail[::-1]}",
        state + "x",
        state * 9,
        "ä",
        "connect_a.b.c",
    ):
        answer = await get(mine, "/confirm", code="c", state=wrong)
        assert answer.status == 400, wrong
        assert "text/html" in answer.headers["Content-Type"]
    assert (await get(mine, "/confirm", code="c")).status == 400
    assert (await get(nobody, "/confirm", code="c", state=state)).status == 400
    await site.change(created_at=timedelta(minutes=-10, seconds=-1))
    assert (await get(mine, "/confirm", code="c", state=state)).status == 400
    assert site.codes() == []


async def test_an_attempt_that_the_store_has_forgotten_is_refused(site: Site) -> None:
    browser = await site.admin()
    state = await begin(browser)
    async with site.store.transaction() as transaction:
        await transaction.execute(_attempt.delete())
    assert (await get(browser, "/confirm", code="c", state=state)).status == 400
    assert site.codes() == []


async def test_an_error_is_shown_and_ends_the_attempt(site: Site) -> None:
    """T-CB-ERROR"""
    browser = await site.admin()
    state = await begin(browser)
    answer = await get(browser, "/confirm", error="<script>alert(1)</script>", state=state)
    page = await answer.text()
    assert answer.status == 200
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "Start again" in await (await get(browser, "/confirm", code="c", state=state)).text()
    stray = await get(browser, "/confirm", error="access_denied")
    assert stray.status == 400
    assert "access_denied" in await stray.text()
    assert site.codes() == []


async def test_odd_callbacks_are_refused(site: Site) -> None:
    """T-CB-ERROR: missing, doubled, huge."""
    browser = await site.admin()
    state = await begin(browser)
    for query in ("", "code=&", "code=a&code=b&", f"code={'c' * 2049}&", "code=%00&", "code=c&code=c&"):
        answer = await browser.get(f"/confirm?{query}state={state}", allow_redirects=False)
        assert answer.status == 400, query
    assert (await browser.get(f"/confirm?code=c&state={state}&state={state}")).status == 400
    assert site.codes() == []
    assert (await get(browser, "/confirm", code="c", state=state)).status == 200


async def test_a_code_that_the_broker_did_not_take_can_be_sent_again(site: Site) -> None:
    """T-CB-DOWN"""
    browser = await site.admin()
    state = await begin(browser)
    site.broker.down = True
    for _ in range(2):
        answer = await get(browser, "/confirm", code="c", state=state)
        assert answer.status == 503
        assert "Reload" in await answer.text()
    assert (await get(browser, STATUS_PATH, code="c", state=state)).status == 503
    site.broker.down = False
    assert (await get(browser, "/confirm", code="c", state=state)).status == 200
    assert [code for _, code in site.codes()] == ["c"]


@pytest.mark.parametrize("path", ["/confirm", STATUS_PATH])
async def test_a_code_that_died_with_its_process_comes_again_with_the_page(site: Site, path: str) -> None:
    """T-CB-DOWN: killed after the state was used, before the broker had the code; the open page goes on asking, with
    or without script."""
    browser = await site.admin()
    state = await begin(browser)
    assert (await get(browser, "/confirm", code="c", state=state)).status == 200
    site.broker.messages.clear()
    await site.change(handed_on_at=None)
    page = await (await get(browser, "/confirm", code="c", state=state)).text()
    assert "http-equiv" in page
    assert site.codes() == [], "whoever is at it may still be"
    await site.change(used_at=timedelta(seconds=-11))
    for _ in range(3):
        assert (await get(browser, path, code="c", state=state)).status == 200
    assert [code for _, code in site.codes()] == ["c"]
    await site.change(handed_on_at=None, used_at=timedelta(seconds=-11), created_at=timedelta(minutes=-11))
    page = await (await get(browser, "/confirm", code="c", state=state)).text()
    assert "Start again" in page
    assert len(site.codes()) == 1


async def test_a_store_that_is_away_is_said_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-CB-DOWN"""
    browser = await site.admin()
    state = await begin(browser)

    def away() -> None:
        raise StoreUnavailable("store: as ordered")

    with monkeypatch.context() as patched:
        patched.setattr(site.store, "transaction", away)
        for path in ("/connect", f"/confirm?code=c&state={state}"):
            answer = await browser.get(path, allow_redirects=False)
            assert (answer.status, "Retry-After" in answer.headers) == (503, True)
    assert site.codes() == []
    assert (await get(browser, "/confirm", code="c", state=state)).status == 200
