"""Webhook to event on a real broker and both databases: fetch, reconcile and relay together."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ops.broker import Vhost
from schemas.events import ListingChanged, dataschema_of
from schemas.messages import ResyncWanted
from schemas.tables import TargetRow
from tests.pipeline import authorise, pipeline
from tests.waiting import until

ROOM = "/v1/locations/5/resources/7"
ROOMS = "/v1/locations/5/resources"


async def test_a_webhook_becomes_one_event_as_the_contract_shows_it(vhost: Vhost, database_url: str) -> None:
    async with pipeline(vhost.url, database_url) as run:
        run.api.pages[ROOM] = {"ID": "7", "capacity": 10}
        delivery_id = await run.webhook(ROOM, resource_id="7843", resource_type="meeting-room")
        await until(lambda: run.events, what="the event")
        event, message = run.events[0], run.messages[0]
        data = event["data"]
        assert event["specversion"] == "1.0"
        assert event["type"] == message.routing_key == message.type == "listing.changed"
        assert event["subject"] == "99/resources/7"
        assert event["dataschema"] == dataschema_of("http://localhost:8080", ListingChanged)
        assert message.message_id == event["id"]
        assert message.content_type == "application/cloudevents+json"
        assert message.delivery_mode == 2
        assert message.headers == {
            "connectionId": "99", "locationId": "1198", "resourceId": "7843", "attributeType": "resources",
            "change": "created",
        }  # fmt: skip
        assert {name: value for name, value in data.items() if name not in ("listingId", "fetchedAt")} == {
            "connectionId": 99, "attributeType": "resources", "itemId": "7", "locationId": "1198",
            "resourceId": "7843", "resourceType": "meeting-room", "change": "created", "reason": "webhook",
            "version": 1, "changedFields": [], "patch": [], "previous": None,
            "current": {"ID": "7", "capacity": 10}, "deliveryId": delivery_id,
        }  # fmt: skip


async def test_an_update_carries_patch_and_fields_and_an_unchanged_answer_is_silent(
    vhost: Vhost, database_url: str
) -> None:
    async with pipeline(vhost.url, database_url) as run:
        run.api.pages[ROOM] = {"ID": 7, "capacity": 10, "name": "Blue"}
        await run.webhook(ROOM)
        await until(lambda: len(run.events) == 1)
        await run.webhook(ROOM)
        await until(lambda: len(run.api.calls) == 2, what="the second fetch")
        run.api.pages[ROOM] = {"ID": 7, "capacity": 12, "name": "Blue"}
        await run.webhook(ROOM)
        await until(lambda: len(run.events) == 2)
        data = run.events[1]["data"]
        assert (data["change"], data["version"], data["changedFields"]) == ("updated", 2, ["capacity"])
        assert data["patch"] == [{"op": "replace", "path": "/capacity", "value": 12}]
        assert data["previous"] == {"ID": 7, "capacity": 10, "name": "Blue"}


async def test_an_api_that_lags_its_own_webhook_is_looked_at_once_more(vhost: Vhost, database_url: str) -> None:
    """T-RECHECK: whether it shows the item as it was, or a list that has nothing in it yet."""
    others = "/v1/locations/6/resources"
    quick = timedelta(milliseconds=200)
    async with pipeline(vhost.url, database_url, recheck_after=quick, target_interval=timedelta(0)) as run:
        run.api.pages |= {ROOM: {"ID": "7", "capacity": 10}, others: []}
        await run.webhook(ROOM)
        await until(lambda: len(run.events) == 1)
        await run.webhook(ROOM)
        await run.webhook(others)
        await until(lambda: run.api.calls.count(ROOM) == 2 and others in run.api.calls, what="answers with nothing new")
        run.api.pages |= {ROOM: {"ID": "7", "capacity": 11}, others: [{"ID": "8"}]}
        await until(lambda: len(run.events) == 3, what="what the API showed late")
        assert {one["data"]["itemId"] for one in run.events[1:]} == {"7", "8"}
        await until(run.at_rest, what="no third look")
        assert sorted(run.api.calls) == sorted([ROOM, ROOM, ROOM, others, others])


async def test_an_api_that_does_not_know_yet_what_came_back_is_looked_at_once_more(
    vhost: Vhost, database_url: str
) -> None:
    """T-RECHECK: a 404 that changes nothing, as the listing was deleted before."""
    quick = timedelta(milliseconds=200)
    async with pipeline(vhost.url, database_url, recheck_after=quick, target_interval=timedelta(0)) as run:
        run.api.pages[ROOM] = {"ID": "7"}
        await run.webhook(ROOM)
        await until(lambda: len(run.events) == 1)
        del run.api.pages[ROOM]
        await run.webhook(ROOM)
        await until(lambda: len(run.events) == 2)
        await run.webhook(ROOM)
        await until(lambda: len(run.api.calls) == 3, what="an answer that lags")
        run.api.pages[ROOM] = {"ID": "7", "back": True}
        await until(lambda: len(run.events) == 3, what="what the API showed late")
        assert (run.events[2]["data"]["change"], run.events[2]["data"]["version"]) == ("created", 3)


async def test_an_item_its_list_and_a_resync_meet_in_one_listing(vhost: Vhost, database_url: str) -> None:
    async with pipeline(vhost.url, database_url) as run:
        run.api.pages[ROOM] = {"ID": "7", "capacity": 10, "text": "long"}
        await run.webhook(ROOM)
        await until(lambda: len(run.events) == 1)
        run.api.pages[ROOMS] = [{"ID": 7, "capacity": 11}, {"ID": 8, "capacity": 4}]
        await run.webhook(ROOMS)
        await until(lambda: len(run.events) == 3)
        bodies = await run.bodies()
        assert bodies[ROOM] == {"ID": 7, "capacity": 11, "text": "long"}, "a list may hold a summary"
        assert bodies[f"{ROOMS}/8"] == {"ID": 8, "capacity": 4}


async def test_a_removed_item_is_deleted_and_comes_back_with_its_version(vhost: Vhost, database_url: str) -> None:
    async with pipeline(vhost.url, database_url) as run:
        run.api.pages[ROOM] = {"ID": "7"}
        await run.webhook(ROOM)
        await until(lambda: len(run.events) == 1)
        del run.api.pages[ROOM]
        await run.webhook(ROOM)
        await until(lambda: len(run.events) == 2)
        run.api.pages[ROOM] = {"ID": "7", "again": True}
        await run.webhook(ROOM)
        await until(lambda: len(run.events) == 3)
        told = [(one["data"]["change"], one["data"]["reason"], one["data"]["version"]) for one in run.events]
        assert told == [("created", "webhook", 1), ("deleted", "gone", 2), ("created", "webhook", 3)]


async def test_what_lies_under_a_removed_item_is_asked_itself(vhost: Vhost, database_url: str) -> None:
    async with pipeline(vhost.url, database_url) as run:
        run.api.pages[ROOM] = {"ID": "7"}
        run.api.pages[f"{ROOM}/rates"] = [{"ID": "1"}, {"ID": "2"}]
        run.api.pages[f"{ROOM}/rates/2"] = {"ID": "2"}
        await run.webhook(ROOM)
        await run.webhook(f"{ROOM}/rates")
        await until(lambda: len(run.events) == 3)
        del run.api.pages[ROOM]
        await run.webhook(ROOM)
        await until(lambda: len(run.events) == 5)
        told = {(one["data"]["itemId"], one["data"]["change"], one["data"]["reason"]) for one in run.events[3:]}
        assert told == {("7", "deleted", "gone"), ("1", "deleted", "gone")}
        await until(lambda: f"{ROOM}/rates/2" in run.api.calls)
        assert set(await run.bodies()) == {f"{ROOM}/rates/2"}, "it answers, whatever became of its parent"


async def test_absence_from_a_complete_walk_is_confirmed_at_the_items_own_url(vhost: Vhost, database_url: str) -> None:
    async with pipeline(vhost.url, database_url) as run:
        run.api.pages[ROOMS] = [{"ID": "7"}, {"ID": "8"}, {"ID": "9"}]
        run.api.pages[f"{ROOMS}/8"] = {"ID": "8"}
        await run.webhook(ROOMS)
        await until(lambda: len(run.events) == 3)
        run.api.pages[ROOMS] = [{"ID": "7"}]  # 8 is only missing from the list, 9 is gone
        await run.webhook(ROOMS)
        await until(lambda: len(run.events) == 4)
        assert (run.events[3]["data"]["change"], run.events[3]["data"]["itemId"]) == ("deleted", "9")
        await until(lambda: f"{ROOMS}/8" in run.api.calls)
        assert set(await run.bodies()) == {ROOM, f"{ROOMS}/8"}


async def test_what_a_resync_finds_is_read_with_what_lies_under_it(vhost: Vhost, database_url: str) -> None:
    """The webhooks for rooms and rates are lost: one room is found by the resync, one by a list before it."""
    async with pipeline(vhost.url, database_url) as run:
        run.api.pages[ROOMS] = [{"ID": "7"}]
        run.api.pages[f"{ROOM}/rates"] = [{"ID": "1"}]
        run.api.pages[f"{ROOMS}/8/rates"] = [{"ID": "2"}]
        await run.webhook(ROOMS)
        await until(lambda: len(run.events) == 1)
        run.api.pages[ROOMS] = [{"ID": "7"}, {"ID": "8"}]
        await run.send(ResyncWanted(connection_id=99, reason="hand"))
        await until(lambda: len(run.events) == 4)
        assert set(await run.bodies()) == {ROOM, f"{ROOM}/rates/1", f"{ROOMS}/8", f"{ROOMS}/8/rates/2"}
        await until(run.at_rest)
        assert sorted(run.api.calls) == [ROOMS, ROOMS, f"{ROOM}/rates", f"{ROOMS}/8/rates"], "once each"


async def test_unmapped_holds_against_a_resync_until_a_later_webhook(vhost: Vhost, database_url: str) -> None:
    async with pipeline(vhost.url, database_url) as run:
        run.api.pages[ROOM] = {"ID": "7"}
        run.api.pages[ROOMS] = [{"ID": "7"}]
        await run.webhook(ROOM)
        await until(lambda: len(run.events) == 1)
        await run.webhook(ROOM, action="unmapped")
        await until(lambda: len(run.events) == 2)
        assert (run.events[1]["data"]["change"], run.events[1]["data"]["reason"]) == ("deleted", "unmapped")
        calls = len(run.api.calls)
        await run.send(ResyncWanted(connection_id=99))
        await until(lambda: len(run.api.calls) >= calls + 2, what="the resync of the item and its collection")
        await run.webhook(ROOM)
        await until(lambda: len(run.events) == 3)
        data = run.events[2]["data"]
        assert (data["change"], data["version"], data["reason"]) == ("created", 3, "webhook")


async def test_everything_known_is_read_again_each_interval(vhost: Vhost, database_url: str) -> None:
    """A change that no webhook told comes right by itself."""
    async with pipeline(vhost.url, database_url, resync_interval=timedelta(seconds=1)) as run:
        await run.connect()
        run.api.pages[ROOM] = {"ID": "7", "capacity": 10}
        await run.webhook(ROOM)
        await until(lambda: len(run.events) == 1)
        run.api.pages[ROOM] = {"ID": "7", "capacity": 11}
        await until(lambda: len(run.events) == 2)
        data = run.events[1]["data"]
        assert (data["change"], data["reason"], data["deliveryId"]) == ("updated", "resync", None)


async def test_pages_are_walked_to_the_end_with_links_as_they_were_given(vhost: Vhost, database_url: str) -> None:
    async with pipeline(vhost.url, database_url) as run:
        link = f"{ROOMS}?cursor=a%2Fb"
        run.api.pages[ROOMS] = {
            "data": [{"ID": 1}],
            "pages": {"count": 2, "current": 1, "next": run.base_url + link},
        }
        run.api.pages[link] = {"data": [{"ID": 2}], "pages": {"count": 2, "current": 2, "next": ""}}
        await run.webhook(ROOMS)
        await until(lambda: len(run.events) == 2)
        await until(run.at_rest)
        assert run.api.calls == [ROOMS, link]


async def test_a_list_without_ids_is_one_listing(vhost: Vhost, database_url: str) -> None:
    async with pipeline(vhost.url, database_url) as run:
        path = f"{ROOM}/availability"
        run.api.pages[path] = [{"start": "2026-01-01"}, {"start": "2026-01-02"}]
        await run.webhook(path, attribute_type="availability")
        await until(lambda: run.events)
        data = run.events[0]["data"]
        assert data["current"] == [{"start": "2026-01-01"}, {"start": "2026-01-02"}]
        assert (data["itemId"], data["attributeType"]) == ("availability", "availability")


@pytest.mark.parametrize("statuses", [[503], [429], [500, 503]])
async def test_trouble_that_passes_is_tried_again(vhost: Vhost, database_url: str, statuses: list[int]) -> None:
    async with pipeline(vhost.url, database_url) as run:
        run.api.pages[ROOM] = {"ID": "7"}
        run.api.failures[ROOM] = list(statuses)
        await run.webhook(ROOM)
        await until(lambda: run.events)
        assert await run.parked() == []


async def test_what_is_final_is_parked_with_its_reason_and_blocks_nobody(vhost: Vhost, database_url: str) -> None:
    async with pipeline(vhost.url, database_url) as run:
        run.api.failures[ROOM] = [403]
        run.api.pages[f"{ROOMS}/8"] = {"ID": "8"}
        evil = {"count": 2, "current": 1, "next": "http://127.0.0.2:1/x"}
        run.api.pages[ROOMS] = {"data": [{"ID": 9}], "pages": evil}
        for path in (ROOM, ROOMS, f"{ROOMS}/8"):
            await run.webhook(path)
        await until(lambda: len(run.events) == 2)

        async def both_parked() -> bool:
            return await run.parked() == ["forbidden_host", "refused"]

        await until(both_parked)


async def test_a_refused_token_is_renewed_once_and_the_new_one_used(vhost: Vhost, database_url: str) -> None:
    async with pipeline(vhost.url, database_url) as run:
        run.api.token = "access-2"
        run.api.pages[ROOM] = {"ID": "7"}
        await run.webhook(ROOM)
        await until(lambda: run.api.calls)
        await authorise(run, "access-2", version=2)
        await until(lambda: run.events)
        await until(run.at_rest)
        assert len(run.api.calls) == 2
        assert [row.attempts for row in await run.rows(TargetRow)] == [0]


async def test_a_list_without_ids_is_one_listing_also_when_it_is_empty_or_cut_short(
    vhost: Vhost, database_url: str
) -> None:
    """DESIGN, Identity: the list is `current`; an incomplete walk changes nothing."""
    async with pipeline(vhost.url, database_url) as run:
        path = f"{ROOM}/availability"
        run.api.pages[path] = [{"start": "9"}, {"start": "10"}]
        await run.webhook(path)
        await until(lambda: len(run.events) == 1)
        run.api.pages[path] = {"data": [{"start": "9"}], "pages": {"count": 2, "current": 1, "next": None}}
        await run.webhook(path)
        await until(lambda: len(run.api.calls) >= 3, what="the walk that lacks a page, and another")
        run.api.pages[path] = []
        await run.webhook(path)
        await until(lambda: len(run.events) == 2)
        assert [event["data"]["current"] for event in run.events] == [[{"start": "9"}, {"start": "10"}], []]


async def test_a_resync_of_what_was_parked_parks_it_no_second_time(vhost: Vhost, database_url: str) -> None:
    """Parked rows are for webhooks: a resync that meets the same refusal adds none, and one that succeeds mends it."""
    async with pipeline(vhost.url, database_url) as run:
        run.api.failures[ROOM] = [403, 403]
        run.api.pages[ROOM] = {"ID": "7"}
        await run.webhook(ROOM)
        await until(run.parked)
        for calls in (2, 3):
            await run.send(ResyncWanted(connection_id=99))
            await until(lambda: run.api.calls.count(ROOM) == calls)  # noqa: B023  # awaited in the same round
        await until(lambda: run.events)
        assert await run.parked() == ["refused"]
