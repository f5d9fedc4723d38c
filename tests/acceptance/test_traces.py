"""One trace from webhook to event, through all processes, to a collector as OpenTelemetry's are; and without one."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from common.codec import loads
from ops.stack import WORKERS
from tests.acceptance.world import World, webhook_body, world
from tests.collector import Collector, Told, collector
from tests.fixtures.broker import Vhosts
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTION = 99
SECONDS = 60.0
CHAIN = [
    ("gateway-ingress", "webhook", "server"),
    ("gateway-ingress", "publish syncaroo.work", "producer"),
    ("gateway-fetch", "process syncaroo.fetch", "consumer"),
    ("gateway-fetch", "fetch", "internal"),
    ("gateway-fetch", "publish syncaroo.work", "producer"),
    ("gateway-reconcile", "process syncaroo.reconcile", "consumer"),
    ("gateway-relay", "relay", "internal"),
    ("gateway-relay", "publish syncaroo.events", "producer"),
]
"""From the first to the last, each the parent of the next."""


@dataclass(frozen=True)
class Traced:
    """A gateway and what its collector was told."""

    world: World
    collector: Collector

    async def price(self, value: int) -> dict[str, Any]:
        """Change a price by a webhook → the event that tells it."""
        url = next(url for url in (await self.world.sandbox.world()).items if "/rates/" in url)
        await self.world.sandbox.change("price", url, value=value)
        return await self.event(value)

    async def event(self, value: int) -> dict[str, Any]:
        """The message that tells of this price: its headers, and its data."""

        def told() -> dict[str, Any] | None:
            for message, event in zip(self.world.messages, self.world.events, strict=True):
                if event["type"] == "listing.changed" and (event["data"]["current"] or {}).get("price") == value:
                    return {"headers": dict(message.headers), **event}
            return None

        return await until(told, SECONDS, what=f"the event of price {value}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traced(directory: Path, amqp_url: str, best_url: str) -> AsyncIterator[Traced]:
    """One gateway for the module, with everything it logs."""
    async with collector() as found:
        settings = {**found.settings, "LOG_LEVEL": "debug"}
        async with world(directory, amqp_url=amqp_url, database_url=best_url, settings=settings) as made:
            await made.onboard(CONNECTION)
            yield Traced(made, found)


async def test_a_webhook_and_its_event_are_one_trace(traced: Traced) -> None:
    """T-TRACE."""
    event = await traced.price(4321)
    sent = _parts(event["headers"]["traceparent"])
    delivery_id = event["data"]["deliveryId"]
    spans = await traced.collector.trace("relay", gateway__delivery_id=delivery_id)
    assert {span.trace_id for span in spans} == {sent[1]}
    await until(lambda: _by_id(traced, sent[2]), SECONDS, what="the last span")
    assert _chain(traced, sent[2]) == CHAIN
    about = [span for span in traced.collector.spans if span.attributes.get("gateway.delivery_id") == delivery_id]
    assert {span.trace_id for span in about} == {sent[1]}, "a webhook of several traces"
    [relayed] = [span for span in traced.collector.of(sent[1]) if span.name == "relay"]
    assert relayed.attributes["gateway.listing"] == event["subject"]
    [get] = [span for span in traced.collector.of(sent[1]) if span.name == "GET"]
    assert (get.kind, get.attributes["http.response.status_code"]) == ("client", 200)
    assert get.parent_id == next(span.span_id for span in traced.collector.of(sent[1]) if span.name == "fetch")


async def test_a_trace_goes_on_through_a_retry(traced: Traced) -> None:
    """T-TRACE."""
    await traced.world.sandbox.fault("api_status", status=503, match="/rates/", count=4)
    event = await traced.price(4322)
    _, trace_id, span_id, _ = _parts(event["headers"]["traceparent"])
    await until(lambda: _by_id(traced, span_id), SECONDS, what="the last span")
    assert _chain(traced, span_id) == CHAIN
    fetches = [span for span in traced.collector.of(trace_id) if span.name == "fetch"]
    assert [span.attributes["gateway.outcome"] for span in fetches] == ["put_off"] * (len(fetches) - 1) + ["answered"]
    assert [span.attributes["gateway.attempt"] for span in fetches] == list(range(len(fetches)))
    assert len(fetches) > 1
    assert len({span.parent_id for span in fetches}) == 1


async def test_a_trace_goes_on_through_a_replayed_dead_letter(traced: Traced) -> None:
    """T-TRACE: of a target that was parked, and so of the fetch that parked it."""
    await traced.world.sandbox.fault("api_status", status=403, match="/rates/", count=1)
    url = next(url for url in (await traced.world.sandbox.world()).items if "/rates/" in url)
    await traced.world.sandbox.change("price", url, value=4323)
    [letter] = await until(traced.world.admin.dead_letters, SECONDS, what="the dead letter")
    await traced.world.admin.replay(letter["id"])
    event = await traced.event(4323)
    _, trace_id, span_id, _ = _parts(event["headers"]["traceparent"])
    await until(lambda: _by_id(traced, span_id), SECONDS, what="the last span")
    head = CHAIN[:4]
    assert _chain(traced, span_id) == [*head, *CHAIN[2:]], "the first fetch, then the queue again"
    outcomes = [span.attributes["gateway.outcome"] for span in traced.collector.of(trace_id) if span.name == "fetch"]
    assert sorted(outcomes) == ["answered", "parked"]


async def test_what_is_parked_from_a_queue_is_replayed_in_its_trace(traced: Traced) -> None:
    """T-TRACE: of a webhook that tells no target: it goes by the dead queue."""
    await traced.world.sandbox.webhook(CONNECTION, webhook_body(CONNECTION, None, "rates"))
    [letter] = await until(traced.world.admin.dead_letters, SECONDS, what="the dead letter")
    delivery_id = letter["body"]["deliveryId"]
    await traced.world.admin.replay(letter["id"])

    def twice() -> list[Told]:
        found = [span for span in traced.collector.spans if span.attributes.get("gateway.delivery_id") == delivery_id]
        return found if [span.name for span in found].count("process syncaroo.fetch.dead") == 2 else []

    spans = await until(twice, SECONDS, what="parked, replayed, and parked again")
    assert len({span.trace_id for span in spans}) == 1
    for letter in await until(traced.world.admin.dead_letters, SECONDS, what="the dead letter again"):
        await traced.world.admin.drop(letter["id"])


async def test_what_a_resync_reads_is_in_traces_of_its_own(traced: Traced) -> None:
    before = {span.trace_id for span in traced.collector.spans}
    await traced.world.admin.resync(CONNECTION)
    await traced.world.ledger(allow=["lost"])  # what another test has dropped

    def fetches() -> list[Told]:
        found = [span for span in traced.collector.spans if span.attributes.get("gateway.reason_asked") == "hand"]
        return found if len(found) > 3 else []

    found = await until(fetches, SECONDS, what="fetches of the resync")
    assert {span.parent_id for span in found} == {""}
    assert len({span.trace_id for span in found}) == len(found)
    assert not {span.trace_id for span in found} & before


async def test_what_a_webhook_brings_along_is_a_link_and_no_parent(traced: Traced) -> None:
    """T-TRACE: nobody outside decides what is traced, nor under which id."""
    foreign = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            f"{traced.world.stack.url}/update", headers={"traceparent": foreign, "Authorization": "Bearer x"}
        ) as answer,
    ):
        assert answer.status == 401
    spans = await traced.collector.trace("webhook", http__response__status_code=401)
    [span] = [one for one in spans if one.name == "webhook"]
    assert (span.parent_id, span.links) == ("", ("a" * 32,))
    assert span.attributes["gateway.outcome"] == "unauthorized"


async def test_the_lines_of_every_stage_about_a_webhook_are_found_by_its_id(traced: Traced) -> None:
    event = await traced.price(4324)
    delivery_id = event["data"]["deliveryId"]
    trace_id = _parts(event["headers"]["traceparent"])[1]
    wanted = {
        "ingress-1": {"webhook.accepted"},
        "fetch-1": {"webhook.taken_up", "fetch.answered"},
        "reconcile-1": {"listing.changed"},
        "relay-1": {"relay.sent"},
    }

    def lines() -> dict[str, list[Any]]:
        told = {name: list(map(loads, map(str.encode, _lines(traced.world, name)))) for name in wanted}
        found = {name: [one for one in some if one.get("delivery_id") == delivery_id] for name, some in told.items()}
        assert {name: {one["event"] for one in some} & wanted[name] for name, some in found.items()} == wanted
        return found

    found = await until(lines, SECONDS, what="a line of each stage")
    every = [line for some in found.values() for line in some]
    assert {line["connection_id"] for line in every} == {CONNECTION}
    assert {line["trace_id"] for line in every} == {trace_id}
    assert {line["listing"] for line in every if "listing" in line} == {event["subject"]}
    assert {name for name, some in found.items() if any("listing" in line for line in some)} == {
        "reconcile-1",
        "relay-1",
    }


@pytest.mark.parametrize("trouble", ["hanging", "away"])
async def test_a_collector_that_hangs_or_is_away_costs_the_traces_alone(
    tmp_path: Path, vhosts: Vhosts, trouble: str
) -> None:
    """T-TRACE: webhooks become events, each kind of trouble is one line, and all end in their grace."""
    vhost = vhosts.take()
    async with collector(hangs=True) as found:
        settings = {**found.settings, "OTEL_BSP_MAX_QUEUE_SIZE": "20", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10"}
        if trouble == "away":
            settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{_free_port()}"
        database = f"sqlite+aiosqlite:///{tmp_path / 'gateway.db'}"
        async with world(tmp_path, amqp_url=vhost.url, database_url=database, settings=settings) as made:
            await made.onboard(CONNECTION)
            await made.sandbox.burst(50, 20, connection_id=CONNECTION)
            await made.ledger()
            if trouble == "hanging":
                await until(lambda: found.requests > 2, SECONDS, what="somebody tries to tell")
            names = ["ingress-1", *(f"{role}-1" for role in WORKERS)]
            for name in names:
                began = time.monotonic()
                assert await made.stack.terminate(name) == 0
                assert time.monotonic() - began < 12, name
                troubles = [loads(line.encode()) for line in _lines(made, name) if "tracing.trouble" in line]
                assert len({one["reason"].split(":")[0] for one in troubles}) == len(troubles)
            told = "\n".join(made.stack.logs(name) for name in names)
            assert "tracing.trouble" in told
            assert "opentelemetry" not in told, "the library's own lines"
    vhosts.give_back(vhost)


def _chain(traced: Traced, span_id: str) -> list[tuple[str, str, str]]:
    """From the first span of the trace to that one, by parents."""
    found: list[tuple[str, str, str]] = []
    while span_id:
        span = _by_id(traced, span_id)
        assert span is not None, f"the parent of {found[0] if found else span_id} is not there"
        found.insert(0, (span.service, span.name, span.kind))
        span_id = span.parent_id
    return found


def _by_id(traced: Traced, span_id: str) -> Told | None:
    """With all its ancestors, which may come later."""
    known = {span.span_id: span for span in traced.collector.spans}
    span = known.get(span_id)
    above = span
    while above is not None and above.parent_id:
        above = known.get(above.parent_id)
    return None if above is None else span


def _parts(traceparent: str) -> list[str]:
    return traceparent.split("-")


def _lines(made: World, name: str) -> list[str]:
    return [line for line in made.stack.logs(name).splitlines() if line.startswith("{") and line.endswith("}")]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
