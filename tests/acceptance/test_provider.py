"""We as Syncaroo's OAuth provider, played through two running ingresses on each database: the essence of every row.

`tests/component/test_oauth_faults.py` and its neighbours have each of these in all its variants, on an application in
their own process. Here what happens at once happens in two processes, which have only the store in common.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from common.access_tokens import AccessTokens
from common.clock import wall_seconds
from common.store.engine import Store
from ingress.oauth.throttle import ACCOUNT, CLIENT
from ops.children import free_port
from schemas.tables import CodeRow, ConnectionRow, FamilyRow
from tests.acceptance.world import World, world
from tests.component.gateway_parts import (
    ADMIN,
    CLIENT_ID,
    LOCATIONS,
    OLD_SECRET,
    OTHER_REDIRECT,
    REDIRECT,
    TOKEN,
    Form,
    Visitor,
    authorize,
    first_form,
    query_of,
)
from tests.component.test_login import cookie, is_logged_in
from tests.component.test_oauth_faults import (
    AT_ONCE,
    ELSEWHERE,
    ODD,
    PKCE,
    VERIFIER,
    consent_form,
    decide,
    refuses,
    said,
)
from tests.fixtures.broker import Vhosts
from tests.fixtures.database import KINDS
from tests.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

SECONDS = 60.0
T = TypeVar("T")
numbers = count(1)


class Elsewhere(TestServer):
    """One in another process, for the clients of the component tests."""

    def __init__(self, url: str) -> None:
        super().__init__(web.Application())
        self._root = URL(url)

    async def start_server(self, *_: Any, **__: Any) -> None:
        """It runs."""


@dataclass(frozen=True)
class Provider:
    """A gateway, and what a test has of its own there: a browser at each ingress, an address, a user, a connection."""

    made: World
    here: Visitor
    there: Visitor
    user: str
    connection: int

    @property
    def address(self) -> str:
        """Where Syncaroo sends the user to."""
        return authorize(self.connection)

    async def code(self, **query: str) -> str:
        return await self.here.code(self.connection, self.user, **query)

    async def pair(self) -> dict[str, str]:
        return await self.here.connect(self.connection, self.user)

    def share_session(self) -> None:
        """The browser that is logged in here goes there, too."""
        jar = self.there.http.session.cookie_jar
        jar.clear()
        jar.update_cookies({"gateway": cookie(self.here)})

    async def at_once(self, call: Callable[[Visitor], Awaitable[T]]) -> list[T]:
        """Thirty times, half of them at each ingress."""
        return await asyncio.gather(*(call((self.here, self.there)[number % 2]) for number in range(AT_ONCE)))

    async def own(self, model: Any) -> list[Any]:
        return [row for row in await self.here.rows(model) if row.connection_id == self.connection]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateways(
    directory: Path, vhosts: Vhosts, urls: Mapping[str, str]
) -> AsyncIterator[dict[str, tuple[World, Store]]]:
    """One on each database, of two ingresses and the stand-in."""
    pool = {kind: vhosts.take() for kind in urls}

    async def start(kind: str) -> tuple[World, Store]:
        made = await ending.enter_async_context(
            world(
                directory / kind,
                amqp_url=pool[kind].url,
                database_url=urls[kind],
                settings=settings(),
                roles=("ingress", "ingress"),
            )
        )
        store = Store(urls[kind])
        ending.push_async_callback(store.close)
        return made, store

    async with AsyncExitStack() as ending:
        started = await asyncio.gather(*map(start, urls))
        yield dict(zip(urls, started, strict=True))
    for vhost in pool.values():
        vhosts.give_back(vhost)


def settings() -> dict[str, str]:
    """The component tests' names and secrets. Each test comes from an address of its own, whose guesses are counted."""
    stand_in = f"127.0.0.1:{free_port()}"
    return {
        "ADMIN_TOKEN": ADMIN["Authorization"].removeprefix("Bearer "),
        "PLATFORM_CLIENT_ID": CLIENT_ID,
        "PLATFORM_CLIENT_SECRET": OLD_SECRET,
        "PLATFORM_REDIRECT_URIS": f"http://{stand_in}/connection,{REDIRECT},{OTHER_REDIRECT}",
        "SYNCAROO_BASE_URL": f"http://{stand_in}",
        "SYNCAROO_API_HOSTS": stand_in,
        "TRUSTED_PROXIES": "127.0.0.1",
    }


@pytest_asyncio.fixture(params=KINDS, loop_scope="module")
async def provider(request: pytest.FixtureRequest, gateways: dict[str, tuple[World, Store]]) -> AsyncIterator[Provider]:
    made, store = gateways[request.param]
    number = next(numbers)
    urls = [made.stack.url_of(name) for name in made.stack.names("ingress")]
    headers = {"X-Forwarded-For": f"10.0.0.{number}"}
    async with AsyncExitStack() as ending:
        here, there = [
            Visitor(await ending.enter_async_context(TestClient(Elsewhere(url), headers=headers)), store)
            for url in urls
        ]
        user = f"ada-{number}"
        await here.add_user(user, user, locations=LOCATIONS)
        yield Provider(made, here, there, user, 1000 + number)


# --- where one is sent ---------------------------------------------------------------------------------------------


async def test_who_comes_from_elsewhere_is_sent_nowhere_by_a_process(provider: Provider) -> None:
    """T-OP-REDIRECT"""
    assert (await provider.here.log_in(provider.address, provider.user)).status == 303
    for redirect_uri in ELSEWHERE:
        assert await refuses(provider.here, authorize(provider.connection, redirectUri=redirect_uri))
    assert await refuses(provider.here, f"{provider.address}&redirect_uri=https%3A%2F%2Fevil.example")
    assert (await consent_form(provider.here, provider.address)).decisions == ["allow", "deny"]
    assert await provider.own(ConnectionRow) == []


async def test_odd_parameters_are_a_page_of_a_process(provider: Provider) -> None:
    """T-OP-PARAMS"""
    await provider.here.log_in(provider.address, provider.user)
    for odd in ODD:
        assert await refuses(provider.here, authorize(provider.connection, **odd))
    path, _, query = provider.address.partition("?")
    for part in query.split("&"):
        left = "&".join(other for other in query.split("&") if other != part)
        assert await refuses(provider.here, f"{path}?{left}")
        assert await refuses(provider.here, f"{provider.address}&{part}")
    assert (await provider.here.http.get(f"{provider.address}&utm_source=x")).status == 200


# --- people --------------------------------------------------------------------------------------------------------


async def test_logins_are_fresh_alike_and_throttled_in_a_process(provider: Provider) -> None:
    """T-OP-LOGIN: what was planted is not logged in, and nobody learns whether there is such an account."""
    planted = first_form(await (await provider.here.http.get(provider.address)).text()).fields["csrf"]
    before = cookie(provider.here)
    assert (await provider.here.log_in(provider.address, provider.user)).status == 303
    after = cookie(provider.here)
    assert (await consent_form(provider.here, provider.address)).fields["csrf"] != planted
    assert not await is_logged_in(provider.there, before)
    assert await is_logged_in(provider.there, after), "in every process"

    provider.here.http.session.cookie_jar.clear()
    pages = set()
    for login in (f"nobody-{provider.user}", *[provider.user] * ACCOUNT.wrong):
        answer = await provider.here.log_in(provider.address, login, "wrong")
        assert answer.status == 401
        typed = (await answer.text()).replace(login, "")  # it stays in its field
        pages.add(re.sub(r'value="[^"]{20,}"', "", typed))
    assert len(pages) == 1
    refused = await provider.here.log_in(provider.address, provider.user)  # with the right one
    assert (refused.status, int(refused.headers["Retry-After"]) > 0) == (429, True)


async def test_a_form_counts_once_and_in_its_own_session_in_two_processes(provider: Provider) -> None:
    """T-OP-CSRF: forged, another's, thirty clicks; and no page is framed."""
    forged = {"login": provider.user, "password": f"{provider.user}-password"}
    assert (await provider.here.http.post(provider.address, data=forged, allow_redirects=False)).status == 403
    await provider.here.log_in(provider.address, provider.user)
    form = await consent_form(provider.here, provider.address)
    bob = f"bob-{provider.connection}"
    await provider.here.add_user(bob, bob)
    await provider.there.log_in(provider.address, bob)
    for of_another in (form, Form({"csrf": ""})):
        assert (await decide(provider.there, provider.address, of_another)).status == 403
    assert await provider.own(ConnectionRow) == []

    provider.share_session()
    answers = await provider.at_once(lambda visitor: decide(visitor, provider.address, form))
    (location,) = {answer.headers["Location"] for answer in answers}
    assert len(await provider.own(CodeRow)) == 1
    assert (await provider.there.redeem(query_of(location)["code"]))[0] == 200
    again = await decide(provider.here, provider.address, form)
    assert (again.status, "Location" in again.headers) == (400, False), "it was used"
    for answer in (*answers, again):
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Frame-Options"] == "DENY"


async def test_of_two_who_want_one_connection_in_two_processes_one_has_it(provider: Provider) -> None:
    """T-OP-SQUAT"""
    bob = f"bob-{provider.connection}"
    await provider.here.add_user(bob, bob)
    forms = {}
    for visitor, login in ((provider.here, provider.user), (provider.there, bob)):
        await visitor.log_in(provider.address, login)
        forms[id(visitor)] = await consent_form(visitor, provider.address)

    async def click(visitor: Visitor) -> int:
        form = Form(forms[id(visitor)].fields | {"once": secrets.token_urlsafe(8)})
        return (await decide(visitor, provider.address, form)).status

    assert Counter(await provider.at_once(click)) == {303: AT_ONCE // 2, 400: AT_ONCE // 2}
    (owner,) = {row.user_id for row in await provider.own(ConnectionRow)}
    assert {row.user_id for row in await provider.own(CodeRow)} == {owner}
    loser = provider.there if owner == provider.user else provider.here
    assert (await loser.http.get(provider.address)).status == 400
    await provider.made.admin.revoke(provider.connection)
    assert await click(loser) == 400, "revoked is not given up"


# --- tokens --------------------------------------------------------------------------------------------------------


async def test_of_many_redemptions_in_two_processes_one_wins_and_what_it_got_ends(provider: Provider) -> None:
    """T-OP-CODE: and a code that is late, or brought with another redirect, is worth nothing."""
    code = await provider.code()
    answers = await provider.at_once(lambda visitor: visitor.redeem(code))
    assert Counter(status for status, _ in answers) == {200: 1, 400: AT_ONCE - 1}
    (pair,) = [pair for status, pair in answers if status == 200]
    assert [row.revoked_at is not None for row in await provider.own(FamilyRow)] == [True]
    for visitor in (provider.here, provider.there):
        assert (await visitor.refresh(pair["refreshToken"]))[1]["error"] == "invalid_grant"
        assert (await visitor.check(pair["accessToken"], provider.connection)).status == 401

    code = await provider.code()
    assert (await provider.here.redeem(code, redirectUri=OTHER_REDIRECT))[1]["error"] == "invalid_grant"
    await provider.here.change(CodeRow, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert (await provider.here.redeem(code))[1]["error"] == "invalid_grant"


async def test_every_wrong_client_gets_the_same_answer_of_a_process_and_is_throttled(provider: Provider) -> None:
    """T-OP-CLIENT"""
    code = await provider.code()
    right = {"clientId": CLIENT_ID, "clientSecret": OLD_SECRET}
    grant = {"grantType": "authorization_code", "code": code}
    wrong: list[dict[str, str]] = [
        right | {"clientSecret": "wrong"},
        right | {"clientSecret": "ü\x01"},
        right | {"clientId": "unknown"},
        {"clientId": CLIENT_ID},
        {},
    ]
    answers = {await said(await provider.here.http.post(TOKEN, data=grant | one)) for one in wrong}
    answers.add(await said(await provider.here.http.post(TOKEN, data=grant, params=right)))
    ((status, content_type, _),) = answers
    assert (status, content_type) == (401, "application/json")

    async def guess() -> bool:
        answer = await provider.here.http.post(TOKEN, data=grant | right | {"clientSecret": "wrong"})
        if answer.status not in (401, 429):
            pytest.fail(f"answered {answer.status}")  # an AssertionError would be asked again
        return answer.status == 429 and int(answer.headers["Retry-After"]) > 0

    for _ in range(CLIENT.wrong - len(wrong) - 1):
        assert not await guess()
    assert await until(guess, SECONDS, what="429")
    async with provider.here.http.post(TOKEN, data=grant | right, headers={"X-Forwarded-For": "10.9.9.9"}) as answer:
        assert answer.status == 200, "from elsewhere; none of it used the code up"


async def test_of_many_refreshes_in_two_processes_all_get_the_one_successor(provider: Provider) -> None:
    """T-OP-REFRESH: a lost answer costs nothing; who comes with a retired token later ends the family, and is told."""
    first = (await provider.pair())["refreshToken"]
    answers = await provider.at_once(lambda visitor: visitor.refresh(first))
    assert {status for status, _ in answers} == {200}
    (second,) = {pair["refreshToken"] for _, pair in answers}
    status, third = await provider.there.refresh(second)
    assert status == 200
    assert [(row.generation, row.revoked_at) for row in await provider.own(FamilyRow)] == [(3, None)]

    other = {"clientId": "other", "clientSecret": OLD_SECRET}
    assert (await provider.here.exchange(grantType="refresh_token", refreshToken=second, **other))[0] == 401
    told = reuses(provider.made)
    await provider.here.change(FamilyRow, rotated_at=datetime.now(UTC) - timedelta(seconds=31))
    late = await provider.at_once(lambda visitor: visitor.refresh(first))
    assert {pair["error"] for _, pair in late} == {"invalid_grant"}
    assert (await provider.there.refresh(third["refreshToken"]))[1]["error"] == "invalid_grant"
    assert (await provider.there.check(third["accessToken"], provider.connection)).status == 401
    assert reuses(provider.made) == told + 1


def reuses(made: World) -> int:
    """How often operators were told."""
    return sum(made.stack.logs(name).count("oauth.refresh_token_reused") for name in made.stack.names("ingress"))


async def test_a_challenge_is_enforced_by_every_process(provider: Provider) -> None:
    """T-OP-PKCE"""
    code = await provider.code(**PKCE)
    for visitor in (provider.here, provider.there):
        for wrong in ({}, {"codeVerifier": VERIFIER[:-1]}, {"codeVerifier": PKCE["codeChallenge"]}):
            assert (await visitor.redeem(code, **wrong))[1]["error"] == "invalid_grant"
    assert (await provider.there.redeem(code, codeVerifier=VERIFIER))[0] == 200
    plain = await provider.code()
    assert (await provider.there.redeem(plain, codeVerifier=VERIFIER))[1]["error"] == "invalid_grant"
    assert (await provider.there.redeem(plain))[0] == 200
    plain_method = {"codeChallenge": VERIFIER, "codeChallengeMethod": "plain"}
    assert await refuses(provider.here, authorize(provider.connection, **plain_method))


# --- what Syncaroo sees --------------------------------------------------------------------------------------------


async def test_the_strict_stand_in_reads_every_answer(provider: Provider) -> None:
    """T-OP-CONTRACT: it judges each answer that it gets; and each form of one is as the guide has it."""
    order = (await provider.made.sandbox.records()).order
    await provider.made.connect(provider.connection)
    assert (await provider.made.sandbox.check(provider.connection))["locations"] > 0
    found = await provider.made.sandbox.records(after=order)
    assert [one.what for one in found.platform][:2] == ["exchange", "check_connection"]
    assert found.violations == []

    code = await provider.here.code(provider.connection + 1000, provider.user)
    good = {"clientId": CLIENT_ID, "clientSecret": OLD_SECRET, "grantType": "authorization_code", "code": code}
    sent: list[tuple[int, dict[str, Any]]] = [
        (400, {"json": good}),
        (401, {"data": good | {"clientSecret": "wrong"}}),
        (200, {"data": good}),
        (400, {"data": good}),
    ]
    for status, request in sent:
        async with provider.here.http.post(TOKEN, **request) as answer:
            assert (answer.status, answer.content_type) == (status, "application/json")
            assert answer.headers["Cache-Control"] == "no-store"
            body = await answer.json()
        if status == 200:
            assert set(body) == {"accessToken", "expires", "refreshToken"}
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", body["expires"])
        else:
            assert set(body) == {"error", "errorDescription"}


async def test_check_tells_their_own_listings_to_their_own_token_in_every_process(provider: Provider) -> None:
    """T-OP-CHECK"""
    bob, bobs_connection = f"bob-{provider.connection}", provider.connection + 1000
    places = {"7": {"ID": "7", "name": "Bob's", "status": "active"}}
    await provider.here.add_user(bob, bob, locations=places)
    adas = (await provider.pair())["accessToken"]
    bobs = (await provider.here.connect(bobs_connection, bob))["accessToken"]
    [family] = [row.family for row in await provider.own(FamilyRow)]
    issuing = AccessTokens([provider.made.stack.environment["SECRET_KEYS"]], 3600)
    expired = issuing.issue(provider.connection, family, wall_seconds() - 3601)
    for visitor in (provider.here, provider.there):
        answer = await visitor.check(bobs, bobs_connection)
        assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"
        assert set((await answer.json())["locations"]) == {"7"}
        assert set((await (await visitor.check(adas, provider.connection)).json())["locations"]) == set(LOCATIONS)
        assert (await visitor.check(bobs, provider.connection)).status == 403
        for wrong in ("", "x", expired):
            assert (await visitor.check(wrong, provider.connection)).status == 401
        in_query = f"/api/check_connection?connectionId={provider.connection}&accessToken={adas}"
        assert (await visitor.http.get(in_query)).status == 401


async def test_a_new_password_and_the_end_of_a_user_count_in_every_process(provider: Provider) -> None:
    """T-OP-REVOKE: sessions end with the password; tokens, codes and sessions with the user."""
    pair, code = await provider.pair(), await provider.code()
    form = await consent_form(provider.here, provider.address)
    assert form.decisions
    provider.share_session()
    assert (await consent_form(provider.there, provider.address)).decisions
    await provider.here.admin("PUT", f"users/{provider.user}", {"password": "another"})
    for visitor in (provider.here, provider.there):
        assert (await decide(visitor, provider.address, form)).status == 401
    status, pair = await provider.there.refresh(pair["refreshToken"])
    assert status == 200, "the connection was the user's wish, and is ended where connections are"

    provider.there.http.session.cookie_jar.clear()
    await provider.there.log_in(provider.address, provider.user, "another")
    form = await consent_form(provider.there, provider.address)
    assert form.decisions
    assert (await provider.here.admin("DELETE", f"users/{provider.user}"))[0] == 204
    assert (await decide(provider.there, provider.address, form)).status == 401
    for visitor in (provider.there, provider.here):
        assert (await visitor.check(pair["accessToken"], provider.connection)).status == 401
        assert (await visitor.refresh(pair["refreshToken"]))[1]["error"] == "invalid_grant"
        assert (await visitor.redeem(code))[1]["error"] == "invalid_grant"
