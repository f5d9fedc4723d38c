"""The traces that a target waits with: all webhooks that one fetch answers, and none that it does not."""

from __future__ import annotations

import pytest

from common.store.engine import Store
from common.store.parked import Parked, list_parked, park
from common.store.targets import MOST_TRACES, Wanted, look_again, want
from schemas.messages import PlatformIds, Reason
from tests.component.target_parts import HOUR, NOW, Process, authorise, process
from workers.fetch.claim import Claim

URL = "https://api.syncaroo.com/v1/locations/1198"


@pytest.fixture
async def targets(store: Store) -> Process:
    """Of a process that has a grant."""
    await authorise(store)
    return process(store)


async def wish(store: Store, *traces: str, reason: Reason = "webhook") -> None:
    """By a webhook for each, in one batch."""
    async with store.transaction() as transaction:
        await want(transaction, [Wanted(99, URL, PlatformIds(), reason, one, (one,)) for one in traces])


async def resync(store: Store) -> None:
    async with store.transaction() as transaction:
        await want(transaction, [Wanted(99, URL, PlatformIds(), "resync")])


async def take(targets: Process) -> Claim:
    [claim], _ = await targets.claim(10)
    return claim


async def test_one_fetch_knows_the_traces_of_all_that_it_answers(store: Store, targets: Process) -> None:
    """T-TRACE."""
    await wish(store, "a", "b")
    await wish(store, "c")
    claim = await take(targets)
    assert claim.traces == ("c", "b", "a")
    await targets.answered(claim, 200)
    await wish(store, "d")
    assert (await take(targets)).traces == ("d",)


async def test_what_was_put_off_still_waits(store: Store, targets: Process) -> None:
    await wish(store, "a")
    await targets.put_off(await take(targets), NOW, "503", status=503)
    await wish(store, "b")
    assert (await take(targets)).traces == ("b", "a")


async def test_a_resync_is_in_no_webhook_s_trace_and_takes_none_away(store: Store, targets: Process) -> None:
    await wish(store, "a")
    await resync(store)
    claim = await take(targets)
    assert claim.traces == ("a",)
    await targets.answered(claim, 200)
    await resync(store)
    claim = await take(targets)
    assert (claim.is_resync, claim.traces) == (True, ())
    await targets.answered(claim, 200)


async def test_a_second_look_is_in_the_trace_of_its_webhook(store: Store, targets: Process) -> None:
    await wish(store, "a")
    await targets.answered(await take(targets), 200)
    async with store.transaction() as transaction:
        await look_again(transaction, {(99, URL): await transaction.now() - HOUR})
    claim = await take(targets)
    assert (claim.second_look, claim.traces) == (True, ("a",))


async def test_only_so_many_are_kept(store: Store, targets: Process) -> None:
    for number in range(3):
        await wish(store, *(f"{number}.{one}" for one in range(10)))
    claim = await take(targets)
    assert len(claim.traces) == MOST_TRACES
    assert claim.traces[0] == "2.9"


async def test_what_is_not_traced_is_in_no_trace(store: Store, targets: Process) -> None:
    async with store.transaction() as transaction:
        await want(transaction, [Wanted(99, URL, PlatformIds(), "webhook", "d")])
    assert (await take(targets)).traces == ()


async def test_what_is_parked_is_replayed_in_its_trace(store: Store) -> None:
    traced = Parked("syncaroo.fetch", "bad_json", 99, "fetch.35", "WebhookReceived", b"{}", 3, traceparent="a")
    untraced = Parked("syncaroo.fetch", "bad_json", 99, "fetch.35", "WebhookReceived", b"{}", 3)
    async with store.transaction() as transaction:
        await park(transaction, [traced, untraced])
    async with store.reading() as transaction:
        found = [one.headers for one in await list_parked(transaction)]
    assert sorted(found, key=len) == [
        {"schema": "WebhookReceived", "attempt": 0},
        {"schema": "WebhookReceived", "attempt": 0, "traceparent": "a"},
    ]
