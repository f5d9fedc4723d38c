"""Webhook in, event out, through all processes: fields, no event without a change, few calls for many webhooks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from copy import copy
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from common.codec import dumps, loads
from ops.stack import WORKERS
from ops.why.ask import Answers, ask
from ops.why.screen import screen
from ops.why.words import length
from schemas.events import ListingChanged, dataschema_of
from tests.acceptance.world import World, webhook_body, world
from tests.json_schemas import faults
from tests.waiting import until
from tests.wire import misread, served_schemas

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTION = 99
TYPES = {"listing.changed", "connection.changed", "grant.changed"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(directory: Path, amqp_url: str, best_url: str) -> AsyncIterator[World]:
    """One gateway for the module; every test leaves it running and quiet."""
    async with world(directory, amqp_url=amqp_url, database_url=best_url) as made:
        await made.onboard(CONNECTION)
        yield made


async def test_a_webhook_becomes_an_event_with_every_field(gateway: World) -> None:
    rate_url = next(url for url in (await gateway.sandbox.world()).items if "/rates/" in url)
    known = {listing["itemId"]: listing for listing in await gateway.admin.listings(attributeType="rates")}
    done = await gateway.sandbox.change("price", rate_url, value=1234)
    await gateway.ledger()
    record = (await gateway.sandbox.records()).webhooks[-1]
    message, event = gateway.messages[-1], gateway.events[-1]
    data = event["data"]
    source = gateway.stack.environment["SITE_URI"]

    kind, rate = done.url.rsplit("/", 2)[1:]
    assert event == {
        "specversion": "1.0", "id": event["id"], "source": source, "type": "listing.changed",
        "subject": f"{CONNECTION}/{kind}/{rate}", "time": event["time"], "datacontenttype": "application/json",
        "dataschema": dataschema_of(source, ListingChanged), "data": data,
    }  # fmt: skip
    before = known[rate]
    assert data == {
        "listingId": before["listingId"], "connectionId": CONNECTION, "attributeType": "rates", "itemId": rate,
        "locationId": record.location_id, "resourceId": record.resource_id, "resourceType": data["resourceType"],
        "change": "updated", "reason": "webhook", "version": before["version"] + 1, "changedFields": ["price"],
        "patch": [{"op": "replace", "path": "/price", "value": 1234}],
        "previous": before["current"], "current": before["current"] | {"price": 1234},
        "deliveryId": record.delivery_id, "fetchedAt": data["fetchedAt"],
    }  # fmt: skip
    assert record.location_id
    assert data["resourceType"]
    assert message.headers == {
        "connectionId": str(CONNECTION), "locationId": record.location_id, "resourceId": record.resource_id,
        "attributeType": "rates", "change": "updated",
    }  # fmt: skip
    assert (message.routing_key, message.type, message.message_id) == (
        "listing.changed",
        "listing.changed",
        event["id"],
    )
    assert (message.content_type, message.delivery_mode) == ("application/cloudevents+json", 2)


async def test_the_story_of_a_change_tells_when_it_happened(gateway: World) -> None:
    """`gateway why` beside what the stand-in saw of it: each step after the one before, lengths as the times say."""
    rate_url = next(url for url in (await gateway.sandbox.world()).items if "/rates/" in url)
    before = (await gateway.sandbox.records()).order
    await gateway.sandbox.change("price", rate_url, value=8765)
    await gateway.ledger()
    seen = await gateway.sandbox.records(after=before)
    sent = seen.webhooks[-1]
    call = next(call for call in reversed(seen.calls) if call.url == rate_url)

    # The event may be received before it is noted that it has left, and the attempt be over later still.
    answers = await until(partial(_whole_story, gateway, rate_url, sent.delivery_id), what="the whole story")
    told = [line.plain.rstrip() for line in screen(answers, datetime.now(UTC))]
    change, attempt = answers.history[:2]

    assert (change["kind"], change["current"]["price"]) == ("change", 8765)
    assert attempt["deliveryId"] == sent.delivery_id
    sent_at = int(sent.sent_at * 1000) / 1000  # the id of a delivery tells milliseconds
    steps = [
        ("sent", sent_at),
        ("received", _seconds(attempt["receivedAt"])),
        ("fetch began", call.began_at),
        ("answered", call.ended_at or 0.0),
        ("event made", _seconds(change["at"])),
        ("event left", _seconds(change["publishedAt"])),
    ]
    assert steps == sorted(steps, key=lambda step: step[1])
    # An attempt is over when its answer was handed on: reconcile may be quicker than its end.
    assert _seconds(attempt["at"]) >= (call.ended_at or 0.0)
    late = _seconds(change["publishedAt"]) - _seconds(change["at"])
    left = f"{length(timedelta(seconds=late))} later" if late >= 1 else _clock(change["publishedAt"])
    first = next(number for number, line in enumerate(told) if f"delivery {sent.delivery_id}" in line)
    assert told[first].startswith(f"{_clock(attempt['receivedAt'])}  webhook ")
    rest = [line for line in told[first + 1 :] if "taken up only" not in line]
    assert rest[0].startswith(f"{_clock(attempt['at'])}  attempt 1    200")
    assert rest[1].endswith(f" {dumps(change['previous']['price']).decode()} → 8765"), "a price may be a text"
    assert rest[2].strip() == f"→ version {change['version']} updated, event published {left}"


async def _whole_story(gateway: World, url: str, delivery_id: str | None) -> Answers | None:
    """Once the latest change is marked as published, and the attempt of that delivery is written down before it."""
    answers = await ask(gateway.admin, url, 30)
    change, attempt = answers.history[:2]
    is_whole = change.get("publishedAt") and (attempt["kind"], attempt["deliveryId"]) == ("attempt", delivery_id)
    return answers if is_whole else None


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _clock(text: str) -> str:
    return f"{datetime.fromisoformat(text):%H:%M:%S}"


async def test_every_message_is_read_by_the_cloudevents_sdk_and_fits_the_schema_of_the_whole(gateway: World) -> None:
    """T-OUT-CONTRACT: as the broker delivered it, its AMQP properties too."""
    await gateway.ledger()
    assert {event["type"] for event in gateway.events} == TYPES
    schemas = await served_schemas(gateway.stack.url, gateway.messages)
    wrong = {message.message_id: misread(message, schemas) for message in gateway.messages}
    assert {message_id: found for message_id, found in wrong.items() if found} == {}
    one = next(message for message in gateway.messages if message.type == "listing.changed")
    other_data = dumps(loads(one.body) | {"data": {}})
    for name, value in {"message_id": "another", "type": "another", "headers": {}, "body": other_data}.items():
        spoiled = copy(one)
        setattr(spoiled, name, value)
        assert misread(spoiled, schemas), name


async def test_every_event_fits_the_schema_that_it_names(gateway: World) -> None:
    """T-OUT-CONTRACT: its `dataschema` is an address of the ingress, and what is served there describes its data."""
    await gateway.ledger()
    schemas: dict[str, Any] = {}
    async with aiohttp.ClientSession() as session:
        for url in {event["dataschema"] for event in gateway.events}:
            async with session.get(url) as answer:
                assert (answer.status, answer.content_type) == (200, "application/schema+json")
                schemas[url] = await answer.json(content_type=None)
    assert {event["type"] for event in gateway.events} == TYPES
    wrong = {event["id"]: faults(schemas[event["dataschema"]], event["data"]) for event in gateway.events}
    assert {event_id: found for event_id, found in wrong.items() if found} == {}


async def test_what_is_asked_again_and_has_not_changed_is_no_event(gateway: World) -> None:
    events, before = len(gateway.events), (await gateway.sandbox.records()).order
    await gateway.sandbox.burst(20, 20, connection_id=CONNECTION)
    await gateway.ledger()
    records = await gateway.sandbox.records(after=before)
    assert len(records.webhooks) == 20
    assert len(records.calls) >= 20
    assert len(gateway.events) == events


async def test_an_old_webhook_a_thousand_times_after_a_newer_one_costs_few_calls_and_changes_nothing(
    gateway: World,
) -> None:
    """T-ING-REPLAY: a webhook says where to look, not what is there."""
    url = next(url for url in (await gateway.sandbox.world()).items if "/rates/" in url)
    bodies = [
        loads(webhook_body(CONNECTION, url, "rates").encode()) | {"action": word} for word in ("create", "update")
    ]
    old, newer = (dumps(body).decode() for body in bodies)
    for value, body in ((4321, old), (4322, newer)):
        await gateway.sandbox.change("price", url, value=value, webhook=False)
        await gateway.sandbox.webhook(CONNECTION, body, url=url)
        await gateway.ledger()
    events, before = len(gateway.events), (await gateway.sandbox.records()).order
    turn = asyncio.Semaphore(50)

    async def replay() -> None:
        async with turn:
            await gateway.sandbox.webhook(CONNECTION, old, url=url)

    await asyncio.gather(*(replay() for _ in range(1000)))
    await gateway.ledger()
    records = await gateway.sandbox.records(after=before)
    assert Counter(hook.status for hook in records.webhooks) == {200: 1000}
    seconds = max(hook.answered_at or 0 for hook in records.webhooks) - min(hook.sent_at for hook in records.webhooks)
    assert 1 <= len([call for call in records.calls if call.url == url]) <= 2 + max(1, int(seconds))
    assert len(gateway.events) == events
    prices = {event["data"]["itemId"]: event["data"]["current"]["price"] for event in gateway.events if _is_rate(event)}
    assert prices[url.rsplit("/", 1)[1]] == 4322


def _is_rate(event: Any) -> bool:
    return event["data"].get("attributeType") == "rates" and event["data"]["current"] is not None


async def test_a_thousand_webhooks_over_twenty_targets_cost_few_calls(gateway: World) -> None:
    """T-ING-REPLAY: all twenty change before the burst and in the middle of it; the last state of each comes out."""
    start = (await gateway.sandbox.records()).order
    targets = list((await gateway.sandbox.world()).items)[:20]
    for _ in range(2):
        await asyncio.gather(*(_change(gateway, url) for url in targets))
        await gateway.sandbox.burst(500, 20, connection_id=CONNECTION, concurrency=50)
    await gateway.ledger()

    records = await gateway.sandbox.records(after=start)
    hooks = [hook for hook in records.webhooks if not hook.lost]
    assert Counter(hook.status for hook in hooks) == {200: 1000}
    assert {hook.url for hook in hooks} == set(targets)
    calls = [call for call in records.calls if call.url in targets]
    seconds = max(hook.answered_at or 0 for hook in hooks) - min(hook.sent_at for hook in hooks)
    # One per target at first, one per TARGET_INTERVAL (1 s), one at last: 60, or more where a burst takes its time.
    assert 20 <= len(calls) <= 20 * (2 + max(1, int(seconds)))


async def _change(gateway: World, url: str) -> None:
    await gateway.sandbox.change("price" if "/rates/" in url else "rename", url, webhook=False)


async def test_all_workers_in_one_process(gateway: World) -> None:
    """The four are stopped for a while; one process does all they do."""
    stack = gateway.stack
    four = [name for role in WORKERS for name in stack.names(role)]
    assert set(await asyncio.gather(*map(stack.terminate, four))) == {0}
    start = (await gateway.sandbox.records()).order
    [alone] = await stack.start("all")
    done = await gateway.sandbox.change("price")
    await gateway.sandbox.expire_access()
    await gateway.ledger()
    told = gateway.events[-1]["data"]
    assert (told["itemId"], told["change"]) == (done.url.rsplit("/", 1)[1], "updated")
    await until(lambda: _refreshed(gateway, start), what="a renewed token")
    assert await stack.terminate(alone) == 0
    await asyncio.gather(*map(stack.restart, four))


async def _refreshed(gateway: World, after: int) -> bool:
    return any(one.outcome == "issued" for one in (await gateway.sandbox.records(after=after)).tokens)
