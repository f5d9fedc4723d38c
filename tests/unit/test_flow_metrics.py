"""The flow's numbers on `/metrics`: never waited for for long, gone when store or broker are, back with them."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ingress.flow import metrics as flow_metrics
from ingress.flow.metrics import FlowMetrics
from tests.flow import Sources
from tests.waiting import within


@pytest.fixture
def sources() -> Sources:
    return Sources()


class Page:
    """What `/metrics` would say."""

    def __init__(self, sources: Sources) -> None:
        self._registry = CollectorRegistry()
        self._flow = FlowMetrics(sources, sources, sources.clock)
        self._registry.register(self._flow)

    async def lines(self) -> list[str]:
        await self._flow.look()
        return [line for line in generate_latest(self._registry).decode().splitlines() if line[0] != "#"]


async def test_everything_is_there(sources: Sources) -> None:
    lines = await Page(sources).lines()
    assert {
        "gateway_store_up 1.0", "gateway_broker_up 1.0", 'gateway_queue_messages{queue="syncaroo.fetch"} 5.0',
        'gateway_targets_due{kind="webhook"} 3.0', 'gateway_targets_due_oldest_seconds{kind="webhook"} 12.5',
        'gateway_targets_due{kind="resync"} 1.0', "gateway_events_unpublished 2.0",
        "gateway_events_unpublished_oldest_seconds 4.0", "gateway_listings 7.0",
        'gateway_parked_messages{queue="syncaroo.fetch",reason="refused"} 2.0', "gateway_held_listings 4.0",
        'gateway_grant_state{state="active"} 1.0', 'gateway_grant_state{state="needs_authorisation"} 0.0',
        "gateway_grant_expires_in_seconds 300.0", "gateway_grant_refresh_in_seconds -5.0",
        'gateway_connections{state="confirmed"} 2.0', 'gateway_connection_silence_seconds{connection="99"} 9.0',
        "gateway_connections_silent 1.0", 'gateway_api_blocked_seconds{host="api.syncaroo.com"} 30.0',
    } <= set(lines)  # fmt: skip


@pytest.mark.parametrize(("away", "gone"), [("store", "gateway_targets_due"), ("broker", "gateway_queue_messages")])
async def test_what_is_away_is_said_and_not_shown(sources: Sources, away: str, gone: str) -> None:
    page = Page(sources)
    assert gone in "".join(await page.lines())
    sources.away.add(away)
    sources.now += 11
    lines = await page.lines()
    assert f"gateway_{away}_up 0.0" in lines
    assert gone not in "".join(lines)
    sources.away.clear()
    sources.now += 11
    assert f"gateway_{away}_up 1.0" in await page.lines()


async def test_ten_seconds_of_looks_are_one_question(sources: Sources) -> None:
    page = Page(sources)
    for _ in range(5):
        await page.lines()
    assert sources.reads == 1
    sources.now += 11
    await page.lines()
    assert sources.reads == 2


async def test_a_store_that_hangs_is_not_waited_for_nor_asked_twice(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_metrics, "LOOK_SECONDS", 0.05)
    page = Page(sources)
    sources.open.clear()
    for _ in range(3):
        async with within(5):
            assert "gateway_store_up 0.0" in await page.lines()
    assert sources.reads == 1
    sources.open.set()
    assert "gateway_store_up 1.0" in await page.lines()


async def test_what_was_read_long_ago_is_not_shown(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_metrics, "LOOK_SECONDS", 0.05)
    page = Page(sources)
    await page.lines()
    sources.open.clear()
    sources.now += 30
    assert "gateway_store_up 1.0" in await page.lines()
    sources.now += 31
    assert "gateway_store_up 0.0" in await page.lines()
    sources.open.set()


async def test_a_store_with_another_schema_costs_nothing_else(sources: Sources) -> None:
    sources.bug = True
    lines = await Page(sources).lines()
    assert {"gateway_store_up 0.0", "gateway_broker_up 1.0"} <= set(lines)
