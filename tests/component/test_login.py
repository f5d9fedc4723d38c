"""ingress.oauth.login and pages.session: local accounts, and sessions that are worth only what they should be."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Literal

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp_session import get_session
from argon2 import PasswordHasher
from sqlalchemy import update

from common.errors import Unavailable
from common.settings import SiteSettings
from common.store.engine import Store
from ingress.connect.handler import BINDING
from ingress.oauth.login import MOST_WAITING, LoggedIn, Login, TooMany, WrongPassword
from ingress.oauth.store import OAuthStore
from ingress.oauth.throttle import ACCOUNT, ADDRESS, Throttle
from ingress.oidc.attempts import MOST, remember
from ingress.oidc.rules import new_attempt
from ingress.pages.render import in_session, page, setup_pages
from ingress.pages.session import ADMIN, USER, csrf_token, sign_in
from ingress.parameters import BadInput
from ingress.passwords import Passwords
from schemas.tables import UserRow, table_of
from tests.component.gateway_parts import KEYS, Clock, Gateway, Visitor, authorize, first_form, running
from tests.fixtures.database import ON_SQLITE


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Gateway]:
    async with running(database_url) as gateway:
        await gateway.add_user()
        yield gateway


def cookie(gateway: Visitor) -> str:
    (only,) = gateway.http.session.cookie_jar
    return only.value


async def is_logged_in(gateway: Visitor, with_cookie: str | None = None) -> bool:
    """Whether this browser is, or one that has nothing but that cookie."""
    if with_cookie is not None:
        gateway.http.session.cookie_jar.clear()
        gateway.http.session.cookie_jar.update_cookies({"gateway": with_cookie})
    return bool(first_form(await (await gateway.http.get(authorize())).text()).decisions)


# --- sessions ------------------------------------------------------------------------------------------------------


@ON_SQLITE
async def test_the_session_is_a_fresh_one_after_login(gateway: Gateway) -> None:
    """T-OP-LOGIN: a session that somebody planted before the login is not the one that is logged in."""
    planted = first_form(await (await gateway.http.get(authorize())).text()).fields["csrf"]
    before = cookie(gateway)
    assert (await gateway.log_in(authorize())).status == 303
    after = cookie(gateway)
    assert await is_logged_in(gateway)
    assert first_form(await (await gateway.http.get(authorize())).text()).fields["csrf"] != planted
    assert not await is_logged_in(gateway, before)
    assert await is_logged_in(gateway, after)


@ON_SQLITE
async def test_a_session_ends_with_the_password_that_began_it(gateway: Gateway) -> None:
    """T-OP-REVOKE: also when an operator takes the password away."""
    await gateway.log_in(authorize())
    await gateway.change(UserRow, password_hash=None)
    assert not await is_logged_in(gateway)


@ON_SQLITE
async def test_a_session_stays_when_a_user_is_told_again_as_they_are(gateway: Gateway) -> None:
    """A platform that puts its users each night signs nobody out."""
    await gateway.log_in(authorize())
    await gateway.admin("PUT", "users/1", {"userId": "1", "login": "ada", "password": "ada-password"})
    assert await is_logged_in(gateway)
    await gateway.admin("PUT", "users/1", {"userId": "1", "login": "ada", "password": "another-password"})
    assert not await is_logged_in(gateway)


@ON_SQLITE
async def test_a_cookie_that_was_changed_is_nobody_s(gateway: Gateway) -> None:
    await gateway.log_in(authorize())
    value = cookie(gateway)
    for changed in (value[:-3], value[1:], value.swapcase(), ""):
        assert not await is_logged_in(gateway, changed)
    assert await is_logged_in(gateway, value)


async def test_on_https_the_cookie_goes_nowhere_else() -> None:
    """T-OP-LOGIN"""

    async def set_it(request: web.Request) -> web.Response:
        csrf_token(await get_session(request))
        return web.Response()

    for site, words in (("https://a.example", {"Secure"}), ("http://a.example", set())):
        app = web.Application()
        setup_pages(app, SiteSettings(site_uri=site), KEYS)
        app.router.add_get("/", partial(in_session, handler=set_it))
        async with TestClient(TestServer(app)) as client:
            name, *said = re.split(r"[=;] ?", (await client.get("/")).headers["Set-Cookie"])
            assert name == ("__Host-gateway" if words else "gateway")
            assert {"HttpOnly", "Lax", "/"} | words <= set(said)
            assert "Domain" not in said


async def test_our_origin_is_spelled_as_browsers_do() -> None:
    """T-OP-CSRF: however SITE_URI spells it."""

    class Pages:
        @page
        async def form(self, request: web.Request) -> web.Response:
            return web.Response()

    app = web.Application()
    setup_pages(app, SiteSettings(site_uri="https://A.example:443/"), KEYS)
    app.router.add_post("/", Pages().form)
    async with TestClient(TestServer(app)) as client:
        for origin, status in (("https://a.example", 200), ("http://a.example", 403)):
            assert (await client.post("/", headers={"Origin": origin})).status == status


@pytest.mark.parametrize("length", [10, 500, 600, 1000, 1500, 2000, 2400])
async def test_no_session_is_larger_than_a_browser_keeps(length: int) -> None:
    """RFC 6265 §6.1: 4096 bytes, attributes and all. Here with all that a session ever holds, and the longest `sub`."""

    async def fill(request: web.Request) -> web.Response:
        await sign_in(request, USER, "\U0001f642" * 255, "m" * 32)
        await sign_in(request, ADMIN, "ann", "m" * 32)
        session = await get_session(request)
        for number in range(MOST):
            with suppress(BadInput):
                remember(session, new_attempt(f"/{number}".ljust(length, '"')))
        csrf_token(session)
        session[BINDING] = "b" * 43
        return web.Response()

    app = web.Application()
    setup_pages(app, SiteSettings(site_uri="https://a.example"), KEYS)
    app.router.add_get("/", partial(in_session, handler=fill))
    async with TestClient(TestServer(app)) as client:
        assert len((await client.get("/")).headers["Set-Cookie"]) < 4096


# --- passwords -----------------------------------------------------------------------------------------------------


@ON_SQLITE
async def test_nobody_learns_whether_there_is_such_an_account(gateway: Gateway) -> None:
    """T-OP-LOGIN: the same page, word for word, for an unknown login as for a wrong password."""
    pages = set()
    for login, password in (("ada", "wrong"), ("nobody", "wrong"), ("", "wrong"), ("ada", "x" * 5000), ("ADA", "x")):
        answer = await gateway.submit(authorize(), login=login, password=password)
        assert answer.status == 401
        page = (await answer.text()).replace(f'value="{login}"', 'value=""', 1)
        pages.add(re.sub(r'value="[^"]{20,}"', "", page))
    assert len(pages) == 1


@ON_SQLITE
async def test_what_was_typed_as_login_stays_and_the_password_does_not(gateway: Gateway) -> None:
    typed = 'ada@example.com"><b>'
    for status in [401] * ACCOUNT.wrong + [429]:
        answer = await gateway.submit(authorize(), login=typed, password="wr0ng")
        text = await answer.text()
        assert (answer.status, first_form(text).fields["login"]) == (status, typed)
        assert first_form(text).fields["password"] == ""
        assert "<b>" not in text
        assert "wr0ng" not in text


async def test_an_account_s_wrong_passwords_in_a_row_are_throttled(gateway: Gateway) -> None:
    """T-OP-LOGIN: 5, then 429 with a Retry-After that grows; the right one ends the row."""
    waits = []
    for _ in range(ACCOUNT.wrong + 3):
        answer = await gateway.log_in(authorize(), password="wrong")
        if answer.status == 429:
            waits.append(int(answer.headers["Retry-After"]))
            gateway.clock.now += waits[-1]
            assert (await gateway.log_in(authorize(), password="wrong")).status == 401, "one more guess"
    assert waits == [30, 60, 120]
    assert (await gateway.log_in(authorize())).status == 429
    gateway.clock.now += 1000
    assert (await gateway.log_in(authorize())).status == 303
    gateway.http.session.cookie_jar.clear()
    for _ in range(ACCOUNT.wrong):
        assert (await gateway.log_in(authorize(), password="wrong")).status == 401


@ON_SQLITE
async def test_an_address_s_wrong_passwords_are_throttled(gateway: Gateway) -> None:
    """T-OP-LOGIN: whatever accounts they are for, and whether there are such."""
    for number in range(ADDRESS.wrong):
        assert (await gateway.log_in(authorize(), f"user-{number}")).status == 401
    answer = await gateway.log_in(authorize(), "ada")
    assert (answer.status, answer.headers["Retry-After"]) == (429, "30")
    assert "csrf" in first_form(await answer.text()).fields


class CountingHasher(PasswordHasher):
    """Knows how often it worked, in which threads, and can be held up."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=64, parallelism=1)
        self.verified: list[str] = []
        self.threads: set[int] = set()
        self.go = threading.Event()
        self.go.set()

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002  # its name there
        self.go.wait(60)
        self.threads.add(threading.get_ident())
        self.verified.append(str(hash).rpartition("$")[0].rpartition("$")[0])
        return super().verify(hash, password)


@ON_SQLITE
async def test_an_unknown_login_costs_the_same_work_and_none_of_it_on_the_loop(store: Store) -> None:
    """T-OP-LOGIN"""
    hasher, clock = CountingHasher(), Clock()
    login = Login(OAuthStore(store), Passwords(hasher), Throttle(clock))
    await OAuthStore(store).known("1")
    async with store.transaction() as transaction:
        values = {"login": "ada", "password_hash": hasher.hash("right")}
        await transaction.execute(update(table_of(UserRow)).values(values))
    for name in ("ada", "nobody"):
        assert await login.attempt(name, "wrong", "a") == WrongPassword()
    assert isinstance(await login.attempt("ada", "right", "a"), LoggedIn)
    assert len(hasher.verified) == 3
    assert len(set(hasher.verified)) == 1, "the same costs"
    assert threading.get_ident() not in hasher.threads

    hasher.go.clear()
    waiting = [asyncio.create_task(login.attempt("ada", "wrong", "a")) for _ in range(30)]
    for _ in range(100):  # the loop goes on while passwords are being checked
        await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    hasher.go.set()
    answers = await asyncio.gather(*waiting)
    refused = [answer for answer in answers if isinstance(answer, TooMany)]
    assert len(refused) >= 30 - ACCOUNT.wrong - 1, "of those that came at once only the first few were tried"


@ON_SQLITE
async def test_behind_a_flood_of_logins_nobody_waits_for_long(store: Store) -> None:
    """T-OP-LOGIN: those who come beyond what can wait are told to come back, at once."""
    hasher = CountingHasher()
    login = Login(OAuthStore(store), Passwords(hasher), Throttle(Clock()))
    hasher.go.clear()
    waiting = [asyncio.create_task(login.attempt(str(each), "x", str(each))) for each in range(MOST_WAITING)]
    await asyncio.sleep(0)  # each has come as far as its turn
    with pytest.raises(Unavailable):
        await login.attempt("one more", "x", "one more")
    hasher.go.set()
    assert set(await asyncio.gather(*waiting)) == {WrongPassword()}
    assert await login.attempt("one more", "x", "one more") == WrongPassword()


# --- users of an identity provider ---------------------------------------------------------------------------------


async def test_of_many_first_logins_at_once_one_makes_the_user(store: Store, other: Store) -> None:
    """Two processes, one row; and the platform's own word about the user stays."""
    stores = [OAuthStore(store), OAuthStore(other)]
    accounts = await asyncio.gather(*(stores[number % 2].known("user-7") for number in range(30)))
    assert len({account.mark for account in accounts}) == 1
    assert {account.user_id for account in accounts} == {"user-7"}
