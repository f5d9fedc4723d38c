"""T-AUTHZ: every route of the ingress, every kind of caller, and what each of them gets.

Whoever adds a route adds its row here. Callers without a right are given all that is not one: a session with its own
CSRF token, tokens of other connections, the client's credentials. What they are refused must leave no trace.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import ClientSession, CookieJar, hdrs, web
from cryptography.fernet import Fernet
from sqlmodel import SQLModel

from ingress.app import Parts, create_app, create_ops_app
from tests.component.populated import LISTING, populate
from tests.component.served import Served
from tests.ingress_app import CONNECTION, PLATFORM_SECRET, FakeBroker, bearer, settings, webhook

ADMIN = {"Authorization": "Bearer operator-of-the-tests"}


def basic(secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"syncaroo:{secret}".encode()).decode()}


HEADERS: Mapping[str, Mapping[str, str]] = {
    "nobody": {},
    "a forged cookie": {"Cookie": "gateway=x; __Host-gateway=x"},
    "connection": bearer(),
    "another connection": bearer(98),
    "an expired token": bearer(age=4000),
    "a forged token": bearer(key=Fernet.generate_key().decode()),
    "a user": {},
    "another user": {},
    "an operator": {},
    "ADMIN_TOKEN": ADMIN,
    "a wrong ADMIN_TOKEN": {"Authorization": "Bearer operator-of-the-test"},
    "ADMIN_TOKEN as a password": {
        "Authorization": "Basic " + base64.b64encode(b"admin:operator-of-the-tests").decode()
    },
    "the client": basic(PLATFORM_SECRET),
    "a wrong client": basic("x"),
}
"""All callers, and what they send with everything."""


@dataclass(frozen=True)
class Row:
    """One route: a request to it, what those get who may, and what all others get.

    `200 login` is a page that asks who is there.
    """

    path: str
    others: str
    may: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] | None = None
    json: Any = None


def public(path: str, status: str = "200", **more: Any) -> Row:
    return Row(path, status, **more)


def of_admin(path: str, status: str = "200", json: Any = None) -> Row:
    return Row(f"/admin/v1/{path}", "401", {"ADMIN_TOKEN": status}, json=json)


def of_operator(path: str, status: str = "200") -> Row:
    return Row(f"/console{path}", "200 login", {"an operator": status})


def by_operator(path: str, status: str, **form: str) -> Row:
    return Row(f"/console{path}", "401 login", {"an operator": status}, form=form)


def of_token(path: str) -> Row:
    may = {"connection": "200", "another connection": "403"}
    return Row(f"{path}?connectionId={CONNECTION}", "401", may)


QUERY = f"connectionId={CONNECTION}&clientId=syncaroo&redirectUri=https://app.syncaroo.com/connection&responseType=code"
WEBHOOK = {"connection": "200", "another connection": "403", "an expired token": "401"}
TABLE: Mapping[tuple[str, str], Row] = {
    ("GET", "/static/{file}"): public("/static/style.css"),
    ("GET", "/api/oauth/authorize"): Row(
        f"/api/oauth/authorize?{QUERY}", "200 login", {"a user": "200", "another user": "400"}
    ),
    ("POST", "/api/oauth/authorize"): Row(
        f"/api/oauth/authorize?{QUERY}",
        "401 login",
        {"a user": "303", "another user": "400"},
        form={"decision": "allow"},
    ),
    ("POST", "/api/oauth/token"): Row(
        "/api/oauth/token", "401", {"the client": "400"}, form={"grantType": "authorization_code", "code": "x"}
    ),
    ("GET", "/login/callback"): public("/login/callback", "404"),
    ("GET", "/api/check_connection"): of_token("/api/check_connection"),
    ("GET", "/check_connection"): of_token("/check_connection"),
    ("GET", "/account"): Row("/account", "200 login", {"a user": "200", "another user": "200"}),
    ("POST", "/account"): public(
        "/account", "403 login", form={"csrf": "", "login": "ada", "password": "ada-password"}
    ),
    ("GET", "/account/revoke"): public("/account/revoke", "303"),
    ("POST", "/account/revoke"): Row(
        "/account/revoke", "303", {"a user": "200", "another user": "400"}, form={"connectionId": str(CONNECTION)}
    ),
    ("GET", "/account/sign-out"): public("/account/sign-out", "303"),
    ("GET", "/account/signed-out"): public("/account/signed-out"),
    ("GET", "/connect"): Row("/connect", "200 login", {"an operator": "302"}),
    ("POST", "/connect"): public("/connect", "400 login", form={"csrf": "", "password": "operator-of-the-tests"}),
    ("GET", "/confirm"): public("/confirm?code=x&state=x", "400"),
    ("GET", "/confirm/status"): public("/confirm/status?code=x&state=x", "400"),
    ("POST", "/api/update"): Row("/api/update", "401", WEBHOOK, json=webhook()),
    ("POST", "/update"): Row("/update", "401", WEBHOOK, json=webhook()),
    ("GET", "/api/openapi.json"): public("/api/openapi.json"),
    ("GET", "/asyncapi.json"): public("/asyncapi.json"),
    ("GET", "/schemas"): public("/schemas"),
    ("GET", "/schemas/{name}/{version}"): public("/schemas/listing.changed/1"),
    ("GET", "/schemas/{kind}/{name}/{version}"): public("/schemas/cloudevents/listing.changed/1"),
    ("GET", "/healthz"): public("/healthz"),
    ("GET", "/readyz"): public("/readyz"),
    ("GET", "/metrics"): public("/metrics"),
    ("GET", "/admin/v1/users"): of_admin("users"),
    ("PUT", "/admin/v1/users/{userId}"): of_admin(
        "users/7", "201", {"userId": "7", "login": "g", "password": "g-password"}
    ),
    ("GET", "/admin/v1/users/{userId}"): of_admin("users/1"),
    ("DELETE", "/admin/v1/users/{userId}"): of_admin("users/7", "204"),
    ("GET", "/admin/v1/users/{userId}/locations"): of_admin("users/1/locations"),
    ("PUT", "/admin/v1/users/{userId}/locations"): of_admin("users/2/locations", "200", {}),
    ("PUT", "/admin/v1/users/{userId}/locations/{locationId}"): of_admin(
        "users/2/locations/5", "201", {"ID": "5", "name": "Riga", "status": "active"}
    ),
    ("DELETE", "/admin/v1/users/{userId}/locations/{locationId}"): of_admin("users/2/locations/5", "204"),
    ("GET", "/admin/v1/connections"): of_admin("connections"),
    ("GET", "/admin/v1/connections/{connectionId}"): of_admin(f"connections/{CONNECTION}"),
    ("DELETE", "/admin/v1/connections/{connectionId}"): of_admin("connections/77", "404"),
    ("POST", "/admin/v1/connections/{connectionId}/resync"): of_admin(f"connections/{CONNECTION}/resync", "202"),
    ("GET", "/admin/v1/held"): of_admin("held"),
    ("POST", "/admin/v1/connections/{connectionId}/held/approve"): of_admin(
        f"connections/{CONNECTION}/held/approve?held=7", "409"
    ),
    ("POST", "/admin/v1/connections/{connectionId}/held/discard"): of_admin(
        f"connections/{CONNECTION}/held/discard?held=7", "409"
    ),
    ("GET", "/admin/v1/listings"): of_admin("listings"),
    ("GET", "/admin/v1/listings/{listingId}"): of_admin(f"listings/{LISTING}"),
    ("GET", "/admin/v1/listings/{listingId}/history"): of_admin(f"listings/{LISTING}/history"),
    ("GET", "/admin/v1/targets"): of_admin("targets"),
    ("GET", "/admin/v1/attempts"): of_admin(f"attempts?connectionId={CONNECTION}&url=/v1/locations/12/resources/7843"),
    ("GET", "/admin/v1/dead-letters"): of_admin("dead-letters"),
    ("GET", "/admin/v1/dead-letters/{id}"): of_admin("dead-letters/{dead}"),
    ("POST", "/admin/v1/dead-letters/{id}/replay"): of_admin("dead-letters/77/replay", "404"),
    ("DELETE", "/admin/v1/dead-letters/{id}"): of_admin("dead-letters/77", "404"),
    ("GET", "/admin/v1/unmatched-webhooks"): of_admin("unmatched-webhooks"),
    ("GET", "/admin/v1/status"): of_admin("status"),
    ("POST", "/console"): public("/console", "400 login", form={"csrf": "", "password": "operator-of-the-tests"}),
    ("GET", "/console/events"): Row("/console/events", "401", {"an operator": "200"}),
    ("GET", "/console"): of_operator(""),
    ("GET", "/console/dead-letters"): of_operator("/dead-letters"),
    ("GET", "/console/dead-letters/{id}"): of_operator("/dead-letters/{dead}"),
    ("POST", "/console/drop"): by_operator("/drop", "200", id="{dead}"),
    ("POST", "/console/replay"): by_operator("/replay", "303", id="{dead}"),
    ("GET", "/console/held"): of_operator("/held"),
    ("POST", "/console/held"): by_operator("/held", "303", connectionId=str(CONNECTION), held="7", decision="approve"),
    ("POST", "/console/resync"): by_operator("/resync", "303", connectionId=str(CONNECTION)),
    ("GET", "/console/listings"): of_operator("/listings"),
    ("GET", "/console/listings/{listingId}"): of_operator(f"/listings/{LISTING}"),
    ("POST", "/console/sign-out"): public("/console/sign-out", "303", form={}),
    ("POST", "/account/sign-out"): public("/account/sign-out", "303", form={}),
}
"""By method and address as they are registered; HEAD, where there is one, is GET. Signing out comes last."""


def routes(app: web.Application) -> set[tuple[str, str]]:
    found = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    return {("GET" if method == "HEAD" else method, path) for method, path in found}


@dataclass
class Caller:
    """One of them, with a browser of their own."""

    name: str
    url: str
    http: ClientSession

    async def csrf(self, page: str = "/account") -> str:
        """Of the session that the browser has, or begins here."""
        async with self.http.get(self.url + page) as answer:
            found = re.search(r'name="csrf" value="([^"]+)"', await answer.text())
            return found[1] if found else ""

    async def call(self, method: str, row: Row, dead: str) -> str:
        """What comes of the request of this row; `dead` is the id of the one dead letter."""
        form = None if row.form is None else {"csrf": await self.csrf(), **row.form}
        if form and "id" in form:
            form["id"] = dead
        url = self.url + row.path.replace("{dead}", dead)
        async with self.http.request(method, url, data=form, json=row.json, allow_redirects=False) as answer:
            is_stream = answer.content_type == "text/event-stream"
            body = b"" if is_stream else await answer.read()
            return f"{answer.status} login" if b'type="password"' in body else str(answer.status)

    async def sign_in(self, page: str, **fields: str) -> None:
        form = {"csrf": await self.csrf(page), **fields}
        async with self.http.post(self.url + page, data=form, allow_redirects=False) as answer:
            assert answer.status == 303, await answer.text()


@asynccontextmanager
async def callers(url: str) -> AsyncIterator[list[Caller]]:
    """All of them, those signed in who have to be."""
    async with AsyncExitStack() as stack:
        made = {
            name: Caller(
                name,
                url,
                await stack.enter_async_context(ClientSession(headers=headers, cookie_jar=CookieJar(unsafe=True))),
            )
            for name, headers in HEADERS.items()
        }
        for user_id, login in (("1", "ada"), ("2", "bob")):
            body = {"userId": user_id, "login": login, "password": f"{login}-password"}
            async with made["ADMIN_TOKEN"].http.put(f"{url}/admin/v1/users/{user_id}", json=body) as answer:
                assert answer.status in (200, 201, 204)
        await made["a user"].sign_in("/account", login="ada", password="ada-password")
        await made["another user"].sign_in("/account", login="bob", password="bob-password")
        await made["an operator"].sign_in("/console", password="operator-of-the-tests")
        yield list(made.values())


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with Served(database_url=database_url) as made:
        await populate(made.parts.store)
        yield made


async def everything(served: Served) -> dict[str, list[Any]]:
    """Each row of each table, and what was published."""
    async with served.parts.store.reading() as transaction:
        tables = {
            table.name: sorted(map(repr, await transaction.rows(table.select())))
            for table in SQLModel.metadata.sorted_tables
        }
    return {**tables, "published": list(served.broker.published)}


async def dead_letter(served: Served) -> str:
    async with served.session.get(f"{served.url}/admin/v1/dead-letters", headers=ADMIN) as answer:
        return str((await answer.json())["items"][0]["id"])


def test_every_route_has_its_row() -> None:
    """Also those of an operator's port of its own; and no row is of a route that is gone."""
    together, apart = settings(), settings(ops_port=65_535)
    parts, others = Parts(together, FakeBroker()), Parts(apart, FakeBroker())
    assert routes(create_app(together, parts)) == set(TABLE)
    assert routes(create_app(apart, others)) | routes(create_ops_app(apart, others)) == set(TABLE)


async def test_who_may_not_gets_nothing_and_leaves_no_trace(served: Served) -> None:
    """T-AUTHZ: each caller at each route that is not for them; the store stays as it was, and nothing is published."""
    dead = await dead_letter(served)
    wrong = {}
    async with callers(served.url) as all_of_them:
        before = await everything(served)
        for (method, path), row in TABLE.items():
            for caller in all_of_them:
                if caller.name not in row.may and (got := await caller.call(method, row, dead)) != row.others:
                    wrong[method, path, caller.name] = got
        after = await everything(served)
    assert wrong == {}
    assert after == before


SALVAGED = {("POST", path, "an expired token") for path in ("/api/update", "/update")}
"""Refusals that leave a trace on purpose: nobody sends such a webhook again, so what it is about is read."""


async def test_who_may_gets_what_is_theirs(served: Served) -> None:
    """T-AUTHZ: the other half of the table; who is known and yet refused there leaves no trace either."""
    dead = await dead_letter(served)
    wrong, traces = {}, set()
    async with callers(served.url) as all_of_them:
        for (method, path), row in TABLE.items():
            for caller in all_of_them:
                wanted = row.may.get(caller.name)
                if wanted is None:
                    continue
                before = await everything(served)
                if (got := await caller.call(method, row, dead)) != wanted:
                    wrong[method, path, caller.name] = got
                if wanted.startswith("4") and await everything(served) != before:
                    traces.add((method, path, caller.name))
    assert wrong == {}
    assert traces == SALVAGED


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "SEARCH")


async def test_other_methods_and_addresses_are_refused_alike(served: Served) -> None:
    """405 and 404 in the same words for everybody: nobody learns from them what there is, or who they are taken for."""
    known: dict[str, set[str]] = {}
    for route in served.app.router.routes():
        if route.resource is not None:
            known.setdefault(route.resource.canonical, set()).add(route.method)
    answers: dict[tuple[str, str], set[tuple[int, str, str, bytes]]] = {}
    async with callers(served.url) as all_of_them:
        some = [one for one in all_of_them if one.name in ("nobody", "ADMIN_TOKEN", "connection", "an operator")]
        for path, methods in [*known.items(), ("/nothing/here", set()), ("/admin/v1/nothing", set())]:
            for method in set(METHODS) - methods:
                for caller in some:
                    answers.setdefault((method, path), set()).add(await refusal(caller, method, path))
    wanted = {
        (method, path): (405, ",".join(sorted(known[path]))) if path in known else (404, "") for method, path in answers
    }
    told = {asked: {one[:2] for one in got} for asked, got in answers.items()}
    assert told == {asked: {one} for asked, one in wanted.items()}
    assert {asked: got for asked, got in answers.items() if len(got) > 1} == {}
    assert {one[2] for got in answers.values() for one in got} == {"application/problem+json"}


async def refusal(caller: Caller, method: str, path: str) -> tuple[int, str, str, bytes]:
    async with caller.http.request(method, caller.url + re.sub(r"\{\w+\}", "1", path)) as answer:
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
        return answer.status, answer.headers.get(hdrs.ALLOW, ""), answer.content_type, await answer.read()
