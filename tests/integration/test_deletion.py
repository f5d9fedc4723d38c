"""Deletion on the whole flow: what vanished from the API is deleted, held, approved or kept (CONTRACT §5.6)."""

from __future__ import annotations

import asyncio

import pytest

from ingress.admin.store.held import HeldStore
from ops.broker import Vhost
from schemas.messages import ResyncWanted
from schemas.tables import SuspectRow
from tests.pipeline import Pipeline, pipeline
from tests.waiting import until
from tests.wire import misread, published_schemas

PLACE = "/v1/locations/5"
ROOMS = f"{PLACE}/resources"
LONG = 30.0


def rooms(numbers: range) -> list[str]:
    return [f"{ROOMS}/{number}" for number in numbers]


def exist(run: Pipeline, paths: list[str]) -> None:
    """These rooms and no others are in the API, in their list and at their own URLs."""
    others = {path: page for path, page in run.api.pages.items() if not path.startswith(ROOMS)}
    items = {path: {"ID": path.rsplit("/", 1)[-1]} for path in paths}
    run.api.pages = {**others, **items, ROOMS: list(items.values())}


async def at_rest(run: Pipeline) -> None:
    """Everything wanted is answered, and what was told before is applied: a room that is new since has its event."""
    await until(run.at_rest, timeout=LONG)
    marker = f"/v1/locations/marker-{len(run.events)}"
    run.api.pages[marker] = {"ID": marker.rsplit("/", 1)[-1]}
    await run.webhook(marker)
    await until(lambda: any(one["data"]["itemId"] in marker for one in run.events[-3:]), timeout=LONG)
    await until(run.at_rest, timeout=LONG)


async def live_rooms(run: Pipeline) -> set[str]:
    return {path for path in await run.bodies() if path.startswith(ROOMS)}


async def hold_twelve_of_twenty(run: Pipeline) -> None:
    exist(run, rooms(range(20)))
    await asyncio.gather(*map(run.webhook, rooms(range(20))))
    await until(lambda: len(run.events) == 20, timeout=LONG, what="each room is known by its own webhook")
    exist(run, rooms(range(12, 20)))
    await run.send(ResyncWanted(connection_id=99))
    await until(lambda: run.held, timeout=LONG, what="a person is told")
    await at_rest(run)
    assert set(rooms(range(12))) <= set(run.api.calls[20:]), "the resync has asked each at its own URL, too: 404"
    assert await live_rooms(run) == set(rooms(range(20))), "nothing is deleted"
    assert [one["data"] for one in run.held] == [{"connectionId": 99, "held": 12, "live": 20}], "said once"
    assert (run.held[0]["type"], run.held[0]["subject"]) == ("sync.held", "99")
    assert [misread(message, published_schemas("http://localhost:8080")) for message in run.held_messages] == [[]]


async def test_a_resync_that_misses_most_deletes_nothing_until_a_person_agrees(vhost: Vhost, database_url: str) -> None:
    async with pipeline(vhost.url, database_url) as run:
        await hold_twelve_of_twenty(run)
        run.api.pages[f"{ROOMS}/11"] = {"ID": "11"}  # it came back
        assert await HeldStore(run.store).decide(99, "approve", 12) == (12, True)

        async def all_settled() -> bool:
            return not await run.rows(SuspectRow)

        await until(all_settled, timeout=LONG)
        assert await live_rooms(run) == set(rooms(range(11, 20)))
        await until(lambda: len(run.events) == 20 + 1 + 11, timeout=LONG, what="the rooms, the marker, what is deleted")
        told = {(one["data"]["change"], one["data"]["version"], one["data"]["reason"]) for one in run.events[21:]}
        assert told == {("deleted", 2, "gone")}
        exist(run, rooms(range(20)))
        await run.webhook(f"{ROOMS}/0")
        await until(lambda: len(run.events) == 33, timeout=LONG)
        assert (run.events[32]["data"]["change"], run.events[32]["data"]["version"]) == ("created", 3)
        assert len(run.held) == 1
        run.replayed()


async def test_what_a_person_keeps_stays_until_it_is_missed_again(vhost: Vhost, database_url: str) -> None:
    async with pipeline(vhost.url, database_url) as run:
        await hold_twelve_of_twenty(run)
        assert await HeldStore(run.store).decide(99, "discard", 12) == (12, True)
        exist(run, rooms(range(20)))
        await run.send(ResyncWanted(connection_id=99))
        await at_rest(run)
        assert (await run.rows(SuspectRow), await live_rooms(run)) == ([], set(rooms(range(20))))
        exist(run, rooms(range(12, 20)))
        await run.send(ResyncWanted(connection_id=99))
        await until(lambda: len(run.held) == 2, timeout=LONG, what="a person is asked anew")
        assert len(await live_rooms(run)) == 20


async def test_three_of_a_hundred_go_without_a_person(vhost: Vhost, database_url: str) -> None:
    async with pipeline(vhost.url, database_url) as run:
        exist(run, rooms(range(100)))
        await run.webhook(ROOMS)
        await until(lambda: len(run.events) == 100, timeout=LONG)
        exist(run, rooms(range(3, 100)))
        await run.webhook(ROOMS)
        await until(lambda: len(run.events) == 103, timeout=LONG)
        assert await live_rooms(run) == set(rooms(range(3, 100)))
        assert run.held == []


@pytest.mark.parametrize(("count", "others", "held"), [(3, 10, False), (6, 0, True)], ids=["below", "over"])
async def test_a_location_goes_with_what_lies_under_it_or_that_is_held(
    vhost: Vhost, database_url: str, count: int, others: int, held: bool
) -> None:
    async with pipeline(vhost.url, database_url) as run:
        places = [PLACE, *(f"/v1/locations/{100 + number}" for number in range(others))]
        run.api.pages.update({path: {"ID": path.rsplit("/", 1)[-1]} for path in places})
        exist(run, rooms(range(count)))
        await asyncio.gather(*map(run.webhook, [ROOMS, *places]))
        await until(lambda: len(run.events) == count + len(places), timeout=LONG)
        exist(run, [])
        del run.api.pages[PLACE]
        await run.webhook(PLACE)
        if held:
            await until(lambda: run.held, timeout=LONG)
            assert run.held[0]["data"] == {"connectionId": 99, "held": count, "live": count}
            assert PLACE not in await run.bodies(), "the location itself is one deletion"
            assert await live_rooms(run) == set(rooms(range(count)))
            return
        await until(lambda: len(run.events) == 2 * count + 1 + len(places), timeout=LONG)
        assert (await live_rooms(run), run.held) == (set(), [])


async def test_unmapped_of_everything_is_never_held(vhost: Vhost, database_url: str) -> None:
    async with pipeline(vhost.url, database_url) as run:
        exist(run, rooms(range(8)))
        await run.webhook(ROOMS)
        await until(lambda: len(run.events) == 8, timeout=LONG)
        for path in rooms(range(8)):
            await run.webhook(path, action="unmapped")
        await until(lambda: len(run.events) == 16, timeout=LONG)
        assert (await run.bodies(), run.held) == ({}, [])
