"""ingress.admin: targets, attempts and a listing's history, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from common.codec import dumps
from common.ids import made_at, new_id
from schemas.tables import AttemptRow, BudgetRow, EventRow, ListingRow, SuspectRow, TargetRow, table_of
from tests.component.gateway_parts import Gateway, running

HOST = "api.syncaroo.com"
ROOMS = f"https://{HOST}/v1/locations/5/resources"
ROOM = f"{ROOMS}/7"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TRACED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Gateway]:
    async with running(database_url) as gateway:
        yield gateway


async def add(gateway: Gateway, table: type[Any], *rows: dict[str, Any]) -> None:
    async with gateway.store.transaction() as transaction:
        for row in rows:
            await transaction.execute(table_of(table).insert().values(row))


def listing(**more: Any) -> dict[str, Any]:
    return {
        "connection_id": 99, "listing_id": "the-room", "scope": "/v1/locations/5/resources", "item_id": "7",
        "own_path": "/v1/locations/5/resources/7", "own_url": ROOM, "attribute_type": "resources", "body": "{}",
        "version": 2, "began": 31, "ended": 32, "asked": 30, "deleted": False, "changed_at": NOW, **more,
    }  # fmt: skip


def event(version: int, position: int, **more: Any) -> dict[str, Any]:
    cause = {"url": ROOM, "began": position - 3, "ended": position - 2}
    data = {"listingId": "the-room", "version": version, "change": "updated", "changedFields": ["a"], "patch": []}
    return {
        "connection_id": 99, "event_id": f"event-{version}", "position": position, "type": "listing.changed",
        "subject": "s", "listing_id": "the-room", "version": version, "headers": "{}", "created_at": NOW,
        "published_at": NOW, "data": dumps(data).decode(), "cause": dumps(cause).decode(), **more,
    }  # fmt: skip


def attempt(url: str, started: int, path: str = "/v1/locations/5/resources/7", **more: Any) -> dict[str, Any]:
    return {
        "connection_id": 99, "url": url, "path": path, "started": started, "ended": started + 2, "asked": started - 1,
        "reason": "webhook", "attempt": 0, "outcome": "answered", "status": 200, "pages": 1, "at": NOW, **more,
    }  # fmt: skip


def target(url: str, **more: Any) -> dict[str, Any]:
    return {"connection_id": 99, "url": url, "host": HOST, "reason": "webhook", **more}


async def told(gateway: Gateway, path: str) -> list[tuple[str, int]]:
    """Kind and number of each item of all pages, one item a page."""
    seen, after = [], ""
    while True:
        status, page = await gateway.admin("GET", f"{path}{'&' if '?' in path else '?'}limit=1{after}")
        assert status == 200, page
        seen += [(one["kind"], one.get("position", one.get("started"))) for one in page["items"]]
        if page["next"] is None:
            return seen
        after = f"&after={page['next']}"


async def test_the_history_is_events_and_attempts_newest_first(gateway: Gateway) -> None:
    await add(gateway, ListingRow, listing(), listing(listing_id="other", item_id="8", own_path=f"{ROOM}8"))
    await add(gateway, EventRow, event(1, 13), event(2, 34), event(1, 90, listing_id="other", event_id="of-other"))
    collection = "/v1/locations/5/resources"
    await add(
        gateway, AttemptRow,
        attempt(ROOM, 10), attempt(f"{ROOM}/?full=1", 30), attempt(ROOMS, 20, collection), attempt(f"{ROOM}8", 91, "8"),
        attempt(ROOM, 92, connection_id=100),
    )  # fmt: skip
    story = [("change", 34), ("attempt", 30), ("attempt", 20), ("change", 13), ("attempt", 10)]
    assert await told(gateway, "listings/the-room/history") == story
    status, whole = await gateway.admin("GET", "listings/the-room/history")
    assert (status, whole["next"]) == (200, None)
    assert [(one["kind"], one.get("position", one.get("started"))) for one in whole["items"]] == story
    status, unknown = await gateway.admin("GET", "listings/nothing/history")
    assert (status, unknown["type"]) == (404, "/problems/not-found")


async def test_a_change_names_the_attempt_that_led_to_it(gateway: Gateway) -> None:
    delivery_id = new_id()
    await add(gateway, ListingRow, listing())
    await add(gateway, EventRow, event(2, 34, published_at=None, traceparent=TRACED))
    await add(gateway, AttemptRow, attempt(ROOM, 30, asked=29, delivery_id=delivery_id, attempt=1, detail=None))
    await add(gateway, TargetRow, target(ROOM, wanted=29, asked=29, asked_at=NOW, answered=30))
    change, tried = (await gateway.admin("GET", "listings/the-room/history"))[1]["items"]
    assert change == {
        "kind": "change", "eventId": "event-2", "position": 34, "at": "2026-01-02T03:04:05Z", "publishedAt": None,
        "cause": {"url": ROOM, "began": 31, "ended": 32}, "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
        "listingId": "the-room", "version": 2, "change": "updated", "changedFields": ["a"], "patch": [],
    }  # fmt: skip
    received_at = made_at(delivery_id)
    assert received_at is not None
    assert abs(received_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert datetime.fromisoformat(tried.pop("receivedAt")) == received_at
    assert tried == {
        "kind": "attempt", "connectionId": 99, "url": ROOM, "reason": "webhook", "deliveryId": delivery_id,
        "asked": 29, "askedAt": "2026-01-02T03:04:05Z", "attempt": 1, "started": 30, "ended": 32,
        "outcome": "answered", "status": 200, "pages": 1, "detail": None, "at": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    assert tried["url"] == change["cause"]["url"]
    assert tried["started"] <= change["cause"]["began"] <= tried["ended"]


async def test_an_older_webhook_s_time_is_not_the_latest_one_s(gateway: Gateway) -> None:
    await add(gateway, AttemptRow, attempt(ROOM, 30, asked=20))
    await add(gateway, TargetRow, target(ROOM, asked=29, asked_at=NOW))
    (only,) = (await gateway.admin("GET", f"attempts?connectionId=99&url={ROOM}"))[1]["items"]
    assert (only["asked"], only["askedAt"], only["receivedAt"]) == (20, None, None)


async def test_attempts_of_a_url_that_never_became_a_listing(gateway: Gateway) -> None:
    await add(gateway, AttemptRow, *(attempt(ROOM, started, outcome="put_off") for started in (10, 20, 30)))
    path = "attempts?connectionId=99&url=/v1/locations/5//resources/7/"
    assert await told(gateway, path) == [("attempt", 30), ("attempt", 20), ("attempt", 10)]
    assert (await gateway.admin("GET", "attempts?connectionId=100&url=/v1/locations/5/resources/7"))[1]["items"] == []
    for wrong in (
        "attempts",
        "attempts?connectionId=99",
        f"attempts?url={ROOM}",
        f"attempts?connectionId=x&url={ROOM}",
    ):
        assert (await gateway.admin("GET", wrong))[0] == 400, wrong


async def test_targets_say_how_they_stand(gateway: Gateway) -> None:
    later = datetime.now(UTC) + timedelta(minutes=5)
    past = datetime.now(UTC) - timedelta(minutes=5)
    await add(
        gateway, TargetRow,
        target(f"{ROOMS}/1", wanted=5, answered=4, not_before=past),
        target(f"{ROOMS}/2", wanted=5, answered=4, not_before=later, last_status=503, last_error="answered 503"),
        target(f"{ROOMS}/3", wanted=5, answered=4, lease_until=later, lease_owner="me"),
        target(f"{ROOMS}/4", wanted=5, answered=5, recheck_at=later),
        target(f"{ROOMS}/5", wanted=5, answered=4, lease_until=past, lease_owner="dead", host="other"),
    )  # fmt: skip
    await add(gateway, BudgetRow, {"host": HOST, "tokens": 1.0, "refilled_at": past, "blocked_until": later})
    found = (await gateway.admin("GET", "targets?connectionId=99"))[1]["items"]
    assert [one["state"] for one in found] == ["due", "waiting", "fetching", "resting", "due"]
    assert [one["hostBlockedUntil"] is None for one in found] == [False] * 4 + [True]
    assert list(found[1]) == [
        "connectionId", "url", "state", "reason", "deliveryId", "wanted", "asked", "askedAt", "started", "answered",
        "attempts", "notBefore", "recheckAt", "leaseUntil", "hostBlockedUntil", "lastStatus", "lastError",
    ]  # fmt: skip
    assert (found[1]["lastStatus"], found[1]["lastError"]) == (503, "answered 503")


async def test_targets_are_found_by_url_however_it_ends(gateway: Gateway) -> None:
    spellings = [ROOM, f"{ROOM}/", f"{ROOM}?full=1", f"{ROOM}/?full=1", f"https://{HOST}/v1/locations//5/resources/7"]
    await add(gateway, TargetRow, *map(target, spellings), target(f"{ROOM}0"), target(f"{ROOM}/rates"), target(ROOMS))

    async def urls(query: str) -> list[str]:
        return [one["url"] for one in (await gateway.admin("GET", f"targets?{query}"))[1]["items"]]

    assert sorted(await urls(f"url={ROOM}")) == sorted(spellings[:4])
    assert sorted(await urls("connectionId=99&url=/v1/locations/5/resources/7/")) == sorted(spellings[:4])
    assert spellings[4] in await urls(f"url={spellings[4]}"), "as it is spelled"
    assert await urls(f"connectionId=100&url={ROOM}") == []
    one = (await gateway.admin("GET", f"targets?limit=1&url={ROOM}"))[1]
    rest = await urls(f"url={ROOM}&after={one['next']}")
    assert {one["items"][0]["url"], *rest} == set(spellings[:4])


@pytest.mark.parametrize("state", ["absent", "pending", "held", "approved"])
async def test_one_listing_says_whether_it_is_suspected(gateway: Gateway, state: str) -> None:
    await add(gateway, ListingRow, listing(unmapped=3))
    known = (await gateway.admin("GET", "listings/the-room"))[1]
    assert (known["suspect"], known["unmapped"], known["url"]) == (None, True, ROOM)
    assert (known["path"], known["collection"]) == ("/v1/locations/5/resources/7", "/v1/locations/5/resources")
    suspect = {"connection_id": 99, "listing_id": "the-room", "state": state, "since": NOW}
    await add(gateway, SuspectRow, suspect, suspect | {"listing_id": "another"})
    known = (await gateway.admin("GET", "listings/the-room"))[1]
    assert known["suspect"] == {"state": state, "since": "2026-01-02T03:04:05Z"}


def test_an_id_tells_when_it_was_made_only_if_it_is_ours() -> None:
    assert made_at("nonsense") is None
    assert made_at("5a9d1c1e-6b0f-5d2e-9a57-3f0c6f1f8e11") is None
    assert made_at("0197a6f2-0000-7000-8000-000000000000") == datetime(2025, 6, 25, 11, 56, 7, 40000, tzinfo=UTC)
