"""Answers that are too large, incomplete, or not confirmed, from the API through a real broker to the events."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from common.broker.outgoing import MAX_BODY
from ops.broker import Vhost
from ops.prove.proxy import Mode, Proxy
from schemas.messages import ResyncWanted
from schemas.tables import AttemptRow, EventRow, ListingRow, TargetRow
from tests.pipeline import Pipeline, pipeline
from tests.waiting import until

MIB = 1024 * 1024
PLACE = "/v1/locations/5"
ROOMS = f"{PLACE}/resources"
FREE = f"{ROOMS}/7/availability"


def page(number: int, count: int, ids: list[int], base: str) -> dict[str, Any]:
    following = f"{base}{ROOMS}?page={number + 1}" if number < count else None
    return {"data": [{"ID": one} for one in ids], "pages": {"count": count, "current": number, "next": following}}


async def test_the_largest_answers_get_through_and_larger_ones_are_parked(vhost: Vhost, database_url: str) -> None:
    """T-FR-BIG: no event is larger than RabbitMQ 4 takes, though it holds the listing up to three times."""
    async with pipeline(vhost.url, database_url) as run:
        for letter in "ab":
            run.api.pages[PLACE] = {"ID": 5, "text": letter * (5 * MIB - 200)}
            await told(run, PLACE)
        for shift in (0, 1):
            run.api.pages[FREE] = [dict.fromkeys("abcdefghijkl", n + shift) for n in range(20_000)]
            await told(run, FREE)
        assert [event["data"]["version"] for event in run.events] == [1, 2, 1, 2]
        assert all(len(message.body) < MAX_BODY for message in run.messages)
        assert run.events[3]["data"]["patch"] == [{"op": "replace", "path": "", "value": run.api.pages[FREE]}]
        run.api.pages[PLACE] = {"ID": 5, "text": "c" * 5 * MIB}
        run.api.pages[FREE] = [{"start": n} for n in range(20_001)]
        await run.webhook(PLACE)
        await run.webhook(FREE)
        await until(lambda: parked(run, ["too_large", "too_large"]), 30)
        run.api.pages[f"{ROOMS}/8"] = {"ID": 8}
        await told(run, f"{ROOMS}/8")


async def told(run: Pipeline, path: str) -> None:
    """A webhook, until its event has come."""
    before = len(run.events)
    await run.webhook(path)
    await until(lambda: len(run.events) == before + 1, 30, what=f"the event of {path}")


async def parked(run: Pipeline, reasons: list[str]) -> bool:
    return await run.parked() == reasons


async def test_a_page_that_is_missing_deletes_nothing(vhost: Vhost, database_url: str) -> None:
    """T-PAGE-PARTIAL: of a walk that breaks off what was seen counts; the next whole one tells what has gone."""
    async with pipeline(vhost.url, database_url, delete_brake=1.0) as run:
        await run.connect()
        second = f"{ROOMS}?page=2"
        run.api.pages[ROOMS] = page(1, 2, [1, 2], run.base_url)
        run.api.pages[second] = page(2, 2, [3, 4], run.base_url)
        await run.webhook(ROOMS)
        await until(lambda: len(run.events) == 4)

        run.api.pages[ROOMS] = page(1, 2, [1, 5], run.base_url)
        del run.api.pages[second]
        await run.webhook(ROOMS)
        await until(lambda: parked(run, ["page_refused"]))
        await until(lambda: len(run.events) == 5, what="the new one")
        assert all(row.wanted == row.answered or row.url.endswith("resources") for row in await run.rows(TargetRow))
        assert {row.item_id for row in await run.rows(ListingRow) if not row.deleted} == {"1", "2", "3", "4", "5"}

        run.api.pages[second] = page(2, 2, [3], run.base_url)
        for number in (1, 3, 5):
            run.api.pages[f"{ROOMS}/{number}"] = {"ID": number}
        await run.send(ResyncWanted(connection_id=99))
        await until(lambda: len(run.events) == 7, 20)
        assert {event["data"]["itemId"] for event in run.events[5:]} == {"2", "4"}
        assert {event["data"]["change"] for event in run.events[5:]} == {"deleted"}


async def test_a_page_whose_confirm_is_lost_is_asked_again_and_told_once(vhost: Vhost, database_url: str) -> None:
    """T-FR-CONFIRM: the broker has the page, and nobody says so; the target is not answered before a confirm."""
    async with Proxy.before(vhost.url) as way, pipeline(
        vhost.url, database_url, fetch_amqp_url=way.url(vhost.url)
    ) as run:  # fmt: skip
        await run.webhook(PLACE)
        await until(lambda: run.api.calls, what="the first attempt, a 404")

        async def robbed(_: web.Request) -> web.Response:
            way.mode = Mode.SWALLOW_ANSWERS
            return web.json_response({"data": {"ID": 5}})

        run.api.pages[PLACE] = robbed
        await until(lambda: run.events, 20, what="the event of the page that did arrive")
        (target,) = await run.rows(TargetRow)
        assert target.answered == 0
        run.api.pages[PLACE] = {"ID": 5}
        way.mode = Mode.PASS

        async def answered() -> bool:
            (target,) = await run.rows(TargetRow)
            return bool(target.answered >= target.wanted)

        await until(answered, 30)
        assert "broker" in " ".join(row.detail or "" for row in await run.rows(AttemptRow))
        assert len(await run.rows(EventRow)) == 1
        assert await run.parked() == []
