"""ingress.admin: the operator's API (CONTRACT §3.8)."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update

from common.store.parked import Parked, park
from common.store.targets import Wanted, want
from schemas.messages import PlatformIds
from schemas.tables import CodeRow, EventRow, GrantRow, InventoryRow, ListingRow, TargetRow, UserRow, table_of
from tests.component.gateway_parts import LOCATIONS, Gateway, authorize, running

_target = table_of(TargetRow)

TABLE = [
    ("GET", "users"), ("PUT", "users/1"), ("GET", "users/1"), ("DELETE", "users/1"), ("GET", "users/1/locations"),
    ("PUT", "users/1/locations"), ("PUT", "users/1/locations/1"), ("DELETE", "users/1/locations/1"),
    ("GET", "connections"), ("GET", "connections/99"), ("DELETE", "connections/99"), ("POST", "connections/99/resync"),
    ("GET", "held"), ("POST", "connections/99/held/approve"), ("POST", "connections/99/held/discard"),
    ("GET", "listings"), ("GET", "listings/x"), ("GET", "listings/x/history"),
    ("GET", "targets"), ("GET", "attempts"), ("GET", "dead-letters"),
    ("GET", "dead-letters/x"), ("POST", "dead-letters/x/replay"), ("DELETE", "dead-letters/x"), ("GET", "status"),
]  # fmt: skip


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Gateway]:
    async with running(database_url) as gateway:
        yield gateway


async def test_nothing_without_an_operator_s_token(gateway: Gateway) -> None:
    for method, path in TABLE:
        for headers in ({}, {"Authorization": "Bearer ann"}, {"Authorization": "Bearer ann:anns-token"}):
            answer = await gateway.http.request(method, f"/admin/v1/{path}", headers=headers)
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), path
            assert answer.content_type == "application/problem+json"
    named = await gateway.http.get("/admin/v1/status", headers={"Authorization": "Bearer anns-token"})
    assert named.status == 200


async def test_errors_are_problem_documents(gateway: Gateway) -> None:
    assert (await gateway.admin("GET", "nothing"))[1]["type"] == "/problems/not-found"
    assert (await gateway.admin("PATCH", "status"))[0] == 405
    broken = await gateway.http.put(
        "/admin/v1/users/1", data='{"a":1,"a":2}', headers={"Authorization": "Bearer anns-token"}
    )
    assert (broken.status, (await broken.json(content_type=None))["type"]) == (400, "/problems/invalid-json")


async def test_users(gateway: Gateway) -> None:
    ada = {"userId": "1", "login": "ada", "password": "p"}
    assert await gateway.admin("PUT", "users/1", ada) == (201, {"userId": "1", "login": "ada"})
    assert (await gateway.rows(UserRow))[0].password_hash.startswith("$argon2id$")
    assert (await gateway.admin("PUT", "users/2", {"login": "ada"}))[0] == 409
    assert (await gateway.admin("PUT", "users/2", {"user_id": "2"}))[0] == 201  # with an identity provider
    assert (await gateway.admin("PUT", "users/1", {"login": "ada.l"})) == (200, {"userId": "1", "login": "ada.l"})
    assert (await gateway.log_in(authorize(), "ada.l", "p")).status == 303  # the password stayed
    assert await gateway.admin("GET", "users/1") == (200, {"userId": "1", "login": "ada.l"})
    assert (await gateway.admin("GET", "users/3"))[0] == 404
    wrongs: list[Any] = [
        [],
        {"userId": "9"},
        {"login": ""},
        {"login": " a"},
        {"password": 1},
        {"admin": True},
        {"login": "\0"},
    ]
    for wrong in wrongs:
        assert (await gateway.admin("PUT", "users/1", wrong))[0] == 400, wrong


async def test_users_are_listed_page_by_page(gateway: Gateway) -> None:
    for user_id in ("2", "ä%2Fb", "1"):
        assert (await gateway.admin("PUT", f"users/{user_id}", {"login": user_id}))[0] == 201
    seen, after = [], ""
    for _ in range(4):
        page = (await gateway.admin("GET", f"users?limit=1{after}"))[1]
        seen += [one["userId"] for one in page["items"]]
        after = f"&after={page['next']}"
    assert seen == ["1", "2", "ä/b"]
    assert list(page) == ["items", "next"]


async def test_erasing_a_user_ends_everything(gateway: Gateway) -> None:
    await gateway.add_user(locations=LOCATIONS)
    pair = await gateway.connect()
    assert (await gateway.check(pair["accessToken"])).status == 200
    assert (await gateway.admin("DELETE", "users/1"))[0] == 204
    assert (await gateway.admin("DELETE", "users/1"))[0] == 404
    assert (await gateway.check(pair["accessToken"])).status == 401
    assert (await gateway.admin("GET", "connections/99"))[1]["state"] == "revoked"
    assert [await gateway.rows(model) for model in (UserRow, InventoryRow, CodeRow)] == [[], [], []]
    states = [row.data for row in await gateway.rows(EventRow)]
    assert ['"state":"confirmed"' in states[0], '"state":"revoked"' in states[1]] == [True, True]


async def test_locations(gateway: Gateway) -> None:
    await gateway.add_user()
    await gateway.add_user("2", "bob")
    one = {"ID": "1", "name": "One", "status": "active"}
    two = {"ID": "2", "name": "Two", "status": "draft", "resources": []}
    assert await gateway.admin("GET", "users/1/locations") == (200, {})
    assert (await gateway.admin("PUT", "users/1/locations", {"1": one, "2": two}))[0] == 200
    assert (await gateway.admin("PUT", "users/1/locations", {"1": one}))[0] == 200
    gone = two | {"status": "deleted"}
    assert await gateway.admin("GET", "users/1/locations") == (200, {"1": one, "2": gone})
    assert (await gateway.admin("PUT", "users/1/locations/3", one | {"ID": "3"}))[0] == 201
    assert (await gateway.admin("PUT", "users/1/locations/3", one | {"ID": "3", "name": "Drei"}))[0] == 200
    assert (await gateway.admin("DELETE", "users/1/locations/3"))[0] == 204
    assert (await gateway.admin("GET", "users/1/locations"))[1]["3"]["status"] == "deleted"
    assert await gateway.admin("GET", "users/2/locations") == (200, {})  # ids are unique per user only
    assert (await gateway.admin("DELETE", "users/1/locations/9"))[0] == 404
    for method, path in (("GET", "users/9/locations"), ("PUT", "users/9/locations"), ("PUT", "users/9/locations/1")):
        body = {"GET": None, "PUT": {} if path.endswith("s") else one}[method]
        assert (await gateway.admin(method, path, body))[0] == 404


async def test_locations_are_checked_whole_before_any_is_kept(gateway: Gateway) -> None:
    await gateway.add_user()
    fine = {"ID": "1", "name": "One", "status": "active"}
    room = {"ID": "7", "name": "R", "status": "active", "type": "office"}
    wrongs: list[Any] = [
        fine | {"ID": "2"}, fine | {"ID": 1}, fine | {"status": "gone"}, fine | {"more": 1}, fine | {"name": ""},
        fine | {"resources": {}}, fine | {"resources": [room, room]}, fine | {"resources": [room | {"type": ""}]},
        fine | {"name": "a\0"}, {"ID": "1", "name": "One"}, "x", None,
    ]  # fmt: skip
    for wrong in wrongs:
        assert (await gateway.admin("PUT", "users/1/locations", {"0": fine | {"ID": "0"}, "1": wrong}))[0] == 400, wrong
    assert await gateway.rows(InventoryRow) == []


async def test_connections(gateway: Gateway) -> None:
    await gateway.add_user()
    for connection_id in (99, 100, 101):
        await gateway.code(connection_id)
    first = (await gateway.admin("GET", "connections?limit=2"))[1]
    rest = (await gateway.admin("GET", f"connections?limit=2&after={first['next']}"))[1]
    assert [one["connectionId"] for one in [*first["items"], *rest["items"]]] == [99, 100, 101]
    assert rest["next"] is None
    assert first["items"][0]["state"] == "authorised"
    assert (await gateway.admin("GET", "connections?userId=1"))[1]["items"] == [*first["items"], *rest["items"]]
    assert (await gateway.admin("GET", "connections?user_id=2"))[1] == {"items": [], "next": None}
    assert (await gateway.admin("DELETE", "connections/100"))[0] == 204
    assert (await gateway.admin("DELETE", "connections/100"))[0] == 204
    assert (await gateway.admin("GET", "connections/100"))[1]["state"] == "revoked"
    assert [row.type for row in await gateway.rows(EventRow)] == ["connection.changed"]
    assert (await gateway.admin("DELETE", "connections/7"))[0] == 404
    assert (await gateway.admin("GET", "connections/7"))[0] == 404
    for wrong in ("limit=0", "limit=501", "after=x", "after=WyJhIl0", "limit=1&limit=1"):
        assert (await gateway.admin("GET", f"connections?{wrong}"))[0] == 400, wrong


async def test_resync_makes_every_known_target_wanted(gateway: Gateway) -> None:
    await gateway.add_user()
    await gateway.code()
    url = "https://api.syncaroo.com/v1/locations/1/resources/7"
    async with gateway.store.transaction() as transaction:
        await want(transaction, [Wanted(99, url, PlatformIds(), "webhook")])
        await transaction.execute(update(_target).values(answered=_target.c.wanted))
    assert (await gateway.admin("POST", "connections/99/resync"))[0] == 202
    rows = await gateway.rows(TargetRow)
    assert {row.reason for row in rows if row.wanted > row.answered} == {"hand"}
    assert {row.url for row in rows if row.wanted > row.answered} >= {url, url.rpartition("/")[0]}
    assert (await gateway.admin("POST", "connections/98/resync"))[0] == 404
    await gateway.admin("DELETE", "connections/99")
    assert (await gateway.admin("POST", "connections/99/resync"))[0] == 409


def listing(number: int, **more: Any) -> dict[str, Any]:
    return {
        "connection_id": 99, "listing_id": f"listing-{number}", "scope": "/v1/locations", "item_id": str(number),
        "own_path": f"/v1/locations/{number}", "own_url": None, "attribute_type": "locations", "location_id": "1",
        "resource_id": None, "resource_type": None, "body": '{"ID":"1","big":12345678901234567890}',
        "written_by": "item", "version": 2, "began": 1, "ended": 2, "unmapped": 0, "deleted": False,
        "changed_at": datetime.now(UTC), **more,
    }  # fmt: skip


async def test_listings(gateway: Gateway) -> None:
    rows = [
        listing(1), listing(2, attribute_type="resources"), listing(3, body=None, deleted=True, location_id="2"),
        listing(4, version=0, body=None), listing(5, connection_id=100),
    ]  # fmt: skip
    async with gateway.store.transaction() as transaction:
        await transaction.execute(table_of(ListingRow).insert(), rows)

    async def ids(query: str) -> list[str]:
        return [one["listingId"] for one in (await gateway.admin("GET", f"listings?{query}"))[1]["items"]]

    assert await ids("") == ["listing-1", "listing-2", "listing-3", "listing-5"]
    assert await ids("connectionId=99&attributeType=Resource") == ["listing-2"]
    assert await ids("location_id=2") == ["listing-3"]
    assert await ids("item_id=5") == ["listing-5"]
    assert await ids("url=https://api.syncaroo.com//v1/locations/2/?full=1") == ["listing-2"]
    assert await ids("url=/v1/locations/3") == ["listing-3"]
    assert (await gateway.admin("GET", "listings?url=http://["))[0] == 400
    assert (await gateway.admin("GET", "listings?connectionId=x"))[0] == 400
    seen, after = [], ""
    for _ in range(4):
        page = (await gateway.admin("GET", f"listings?limit=1{after}"))[1]
        seen += [one["listingId"] for one in page["items"]]
        after = f"&after={page['next']}"
    assert seen == await ids("")

    one = (await gateway.admin("GET", "listings/listing-1"))[1]
    assert list(one) == [
        "listingId", "connectionId", "attributeType", "itemId", "locationId", "resourceId", "resourceType",
        "version", "current", "deleted", "revoked",
        "path", "collection", "url", "unmapped", "suspect", "changedAt", "began", "ended", "asked",
    ]  # fmt: skip
    assert list((await gateway.admin("GET", "listings?limit=1"))[1]["items"][0]) == list(one)[:11]
    assert one["current"] == {"ID": "1", "big": 12345678901234567890}
    assert (await gateway.admin("GET", "listings/listing-3"))[1]["current"] is None
    assert (await gateway.admin("GET", "listings/listing-4"))[0] == 404


async def test_a_revoked_connection_s_listings_are_kept_and_marked(gateway: Gateway) -> None:
    await gateway.add_user()
    await gateway.code()
    async with gateway.store.transaction() as transaction:
        await transaction.execute(table_of(ListingRow).insert(), [listing(1), listing(2, connection_id=100)])

    async def marked() -> dict[str, bool]:
        return {one["listingId"]: one["revoked"] for one in (await gateway.admin("GET", "listings"))[1]["items"]}

    assert await marked() == {"listing-1": False, "listing-2": False}
    await gateway.admin("DELETE", "connections/99")
    assert await marked() == {"listing-1": True, "listing-2": False}
    assert (await gateway.admin("GET", "listings/listing-1"))[1]["revoked"] is True
    await gateway.code()
    assert await marked() == {"listing-1": False, "listing-2": False}, "authorised again"


def parked(queue: str, body: bytes) -> Parked:
    return Parked(queue, "bad_json", 99, f"{queue.rpartition('.')[2]}.17", "WebhookReceived", body, 3)


async def test_dead_letters(gateway: Gateway) -> None:
    """T-REPLAY."""
    async with gateway.store.transaction() as transaction:
        await park(transaction, [parked("syncaroo.fetch", b"\xffnot json")])
        await park(transaction, [parked("syncaroo.token", b'{"sealedCode":"gAAA","deep":[{"accessToken":"t"}],"n":1}')])
    everything = (await gateway.admin("GET", "dead-letters"))[1]["items"]
    assert list(everything[0]) == ["id", "queue", "reason", "connectionId", "at", "attempts", "body"]
    for name in ("token", "syncaroo.token", "syncaroo.token.dead"):
        (found,) = (await gateway.admin("GET", f"dead-letters?queue={name}"))[1]["items"]
        assert found["body"] == {"sealedCode": "[sealed]", "deep": [{"accessToken": "[sealed]"}], "n": 1}
    assert len((await gateway.admin("GET", "dead-letters?connectionId=99"))[1]["items"]) == 2
    assert (await gateway.admin("GET", "dead-letters?connectionId=98"))[1]["items"] == []
    assert (await gateway.admin("GET", "dead-letters?reason=nothing"))[1]["items"] == []
    for letter in everything:
        assert letter in (await gateway.admin("GET", f"dead-letters?reason={letter['reason']}"))[1]["items"]
        assert await gateway.admin("GET", f"dead-letters/{letter['id']}") == (200, letter)
    assert (await gateway.admin("GET", "dead-letters/nothing"))[0] == 404
    page = (await gateway.admin("GET", "dead-letters?limit=1"))[1]
    page = (await gateway.admin("GET", f"dead-letters?limit=1&after={page['next']}"))[1]
    assert [one["id"] for one in page["items"]] == [everything[1]["id"]]

    gateway.broker.ready = False
    assert (await gateway.admin("POST", f"dead-letters/{found['id']}/replay"))[0] == 503
    assert len((await gateway.admin("GET", "dead-letters"))[1]["items"]) == 2
    gateway.broker.ready = True
    assert (await gateway.admin("POST", f"dead-letters/{found['id']}/replay"))[0] == 202
    (message,) = gateway.broker.published
    assert (message.routing_key, message.headers["schema"]) == ("token.17", "WebhookReceived")
    assert b"gAAA" in message.body
    assert (await gateway.admin("POST", f"dead-letters/{found['id']}/replay"))[0] == 404
    (other,) = (await gateway.admin("GET", "dead-letters"))[1]["items"]
    assert (await gateway.admin("DELETE", f"dead-letters/{other['id']}"))[0] == 204
    assert (await gateway.admin("DELETE", f"dead-letters/{other['id']}"))[0] == 404
    assert (await gateway.admin("GET", "dead-letters"))[1] == {"items": [], "next": None}


async def test_a_dead_letter_that_no_queue_takes_is_kept_and_says_what_to_do(gateway: Gateway) -> None:
    """T-REPLAY."""
    async with gateway.store.transaction() as transaction:
        await park(transaction, [parked("syncaroo.snapshot", b'{"to":"q"}')])
    [found] = (await gateway.admin("GET", "dead-letters?queue=snapshot"))[1]["items"]
    gateway.broker.without = "snapshot."
    status, problem = await gateway.admin("POST", f"dead-letters/{found['id']}/replay")
    assert (status, problem["type"]) == (409, "/problems/no-queue")
    assert "gateway setup" in problem["detail"]
    assert (await gateway.admin("GET", "dead-letters"))[1]["items"] == [found]
    gateway.broker.without = " "
    assert (await gateway.admin("POST", f"dead-letters/{found['id']}/replay"))[0] == 202


async def test_status(gateway: Gateway) -> None:
    empty = (await gateway.admin("GET", "status"))[1]
    assert empty["grant"] == {"state": "none", "expiresAt": None}
    await gateway.add_user()
    await gateway.code()
    async with gateway.store.transaction() as transaction:
        await want(transaction, [Wanted(99, "https://api.syncaroo.com/v1/locations/1", PlatformIds(), "webhook")])
        await park(transaction, [parked("syncaroo.fetch", b"{}")])
        now = datetime(2026, 1, 2, tzinfo=UTC)
        grant = {"account": "syncaroo", "state": "active", "expires_at": now}
        await transaction.execute(table_of(GrantRow).insert().values(grant))
    status = (await gateway.admin("GET", "status"))[1]
    flow = status.pop("flow")
    assert flow["targets"]["webhook"]["count"] == 1
    assert flow["targets"]["webhook"]["oldestSeconds"] >= 0
    assert status == {
        "grant": {"state": "active", "expiresAt": "2026-01-02T00:00:00Z"},
        "targets": {"due": 1}, "listings": 0, "events": {"unpublished": 0}, "parked": {"bad_json": 1}, "held": 0,
        "connections": {"authorised": 1}, "broker": True,
        "feeds": {"heardAt": None, "nextResyncAt": None, "missed": 0, "silent": {}},
    }  # fmt: skip
