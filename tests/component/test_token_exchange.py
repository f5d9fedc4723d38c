"""Exchanging the code that an admin brought back, against a strict stand-in, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet

from common.broker.consumer import Delivery
from common.errors import Permanent, Retryable, Unavailable
from tests.component.token_parts import Bench, Worker, bench
from workers.token.rules import LEASE


@pytest.fixture(name="bench")
async def _bench(database_url: str) -> AsyncIterator[Bench]:
    async with bench(database_url) as made:
        yield made


async def consume(worker: Worker, deliveries: Sequence[Delivery]) -> None:
    """Hand a message on as the consumer does, which counts its retries."""
    for delivery in deliveries:
        for attempt in range(50):
            try:
                headers = {**delivery.headers, "attempt": attempt}
                await worker.handler([Delivery(delivery.body, headers, delivery.routing_key)])
            except Retryable:
                continue
            break
        else:
            raise AssertionError("never done")


@pytest.mark.parametrize("mood", ["good", "flaky"])
async def test_a_code_becomes_a_pair(bench: Bench, mood: str) -> None:
    if mood == "flaky":
        bench.order("token_status", count=None, probability=0.5)
        bench.order("token_drop", count=None, probability=0.3, consume=False)
    attempt_id, code = await bench.begin(), bench.issue_code()
    await consume(bench.worker(), [bench.code_received(attempt_id, code)])
    row = await bench.grant()
    assert (row.state, row.rt_version, row.lease_owner, row.intent) == ("active", 1, None, None)
    assert await bench.holds_live_pair()
    assert await bench.attempt(attempt_id) == ("active", None)
    assert await bench.events() == ["active"]
    assert bench.violations() == []


async def test_a_message_delivered_twice_exchanges_once(bench: Bench) -> None:
    """T-CB-DOUBLE: one after the other, and at once in two workers."""
    attempt_id, code = await bench.begin(), bench.issue_code()
    message = bench.code_received(attempt_id, code)
    first, second = bench.worker(), bench.worker()
    await asyncio.gather(consume(first, [message]), consume(second, [message]))
    await consume(second, [message])
    assert bench.requests == ["issued"]
    assert await bench.attempt(attempt_id) == ("active", None)
    assert await bench.events() == ["active"]


async def test_an_active_grant_gets_the_new_pair_without_an_event(bench: Bench) -> None:
    old = await bench.authorise(due=False)
    attempt_id = await bench.begin()
    await consume(bench.worker(), [bench.code_received(attempt_id, bench.issue_code())])
    assert (await bench.grant()).rt_version == 2
    assert (await bench.pair()).refresh_token != old
    assert await bench.events() == []


async def test_a_new_code_ends_the_need_for_one(bench: Bench) -> None:
    await bench.authorise(state="needs_authorisation")
    attempt_id = await bench.begin()
    await consume(bench.worker(), [bench.code_received(attempt_id, bench.issue_code())])
    assert (await bench.grant()).state == "active"
    assert await bench.events() == ["active"]


async def test_a_refused_code_leaves_a_working_grant_alone(bench: Bench) -> None:
    await bench.authorise(due=False)
    before = await bench.grant()
    attempt_id = await bench.begin()
    await consume(bench.worker(), [bench.code_received(attempt_id, "not-a-code")])
    assert await bench.attempt(attempt_id) == ("refused", "HTTP 400 invalid_grant")
    assert await bench.grant() == before
    assert await bench.events() == []
    assert bench.requests == ["invalid_grant"]


async def test_a_lost_answer_is_told_to_the_admin(bench: Bench) -> None:
    """T-KILL-CB: the code is used up and the pair is gone; only a new code helps, and the page says so."""
    attempt_id, code = await bench.begin(), bench.issue_code()
    bench.order("token_drop", consume=True)
    await consume(bench.worker(), [bench.code_received(attempt_id, code)])
    assert bench.requests == ["dropped", "reused_after_drop"]
    assert (await bench.attempt(attempt_id))[0] == "refused"
    assert bench.violations() == []


async def test_a_refused_code_is_presented_once_though_the_store_is_away(bench: Bench) -> None:
    attempt_id = await bench.begin()
    worker = bench.worker()
    worker.grants.verdict_failures = 2
    await consume(worker, [bench.code_received(attempt_id, "not-a-code")])
    assert bench.requests == ["invalid_grant"]
    assert (await bench.attempt(attempt_id))[0] == "refused"
    assert (await bench.grant()).lease_owner is None


async def test_trouble_is_noted_for_the_page(bench: Bench) -> None:
    attempt_id, code = await bench.begin(), bench.issue_code()
    bench.order("token_status", status=503)
    with pytest.raises(Retryable):
        await bench.worker().handler([bench.code_received(attempt_id, code)])
    assert await bench.attempt(attempt_id) == ("pending", "HTTP 503")
    assert (await bench.grant()).lease_owner is None


async def test_a_code_that_gets_too_old_is_given_up(bench: Bench) -> None:
    attempt_id, code = await bench.begin(age=timedelta(seconds=595)), bench.issue_code()
    bench.order("token_status", status=503)
    worker = bench.worker(delays=(timedelta(seconds=10),))
    await worker.handler([bench.code_received(attempt_id, code)])
    assert await bench.attempt(attempt_id) == ("failed", "HTTP 503")
    await worker.handler([bench.code_received(attempt_id, code)])
    assert bench.requests == ["failed"]


async def test_a_code_waits_for_whoever_is_talking_to_syncaroo(bench: Bench) -> None:
    """Never two requests at once: the lease is one for codes and refreshes."""
    await bench.authorise()
    attempt_id, code = await bench.begin(), bench.issue_code()
    busy, other = bench.worker(), bench.worker()
    busy.client.let_go.clear()
    step = asyncio.create_task(busy.refresher.refresh_if_due())
    await busy.client.asked.wait()
    with pytest.raises(Retryable):
        await other.handler([bench.code_received(attempt_id, code)])
    assert bench.requests == ["issued"]
    busy.client.let_go.set()
    await step
    await consume(other, [bench.code_received(attempt_id, code)])
    assert bench.requests == ["issued", "issued"]
    assert (await bench.grant()).rt_version == 3
    bench.assert_one_at_a_time()


@pytest.mark.parametrize("told", ["before", "while it waits for the lease", "when it has the lease"])
async def test_a_code_is_left_to_others_at_the_end(bench: Bench, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    """T-TERM-BUSY: there would be no time to keep its pair."""
    await bench.authorise(due=False)
    attempt_id, code = await bench.begin(), bench.issue_code()
    worker = bench.worker()
    worker.handler._lease_wait = 0.0  # which is over, too: it is not tried again later, but by others
    claim_code, look = worker.grants.claim_code, worker.grants.look

    async def late(*given: Any) -> Any:
        claim = await claim_code(*given)
        worker.stop.set()
        return claim

    async def leased() -> Any:
        worker.stop.set()
        found = await look()
        return replace(found, lease_owner="another", lease_until=found.now + LEASE)

    if told == "before":
        worker.stop.set()
    elif told == "when it has the lease":
        monkeypatch.setattr(worker.grants, "claim_code", late)
    else:
        monkeypatch.setattr(worker.grants, "look", leased)
    with pytest.raises(Unavailable):
        await worker.handler([bench.code_received(attempt_id, code)])
    assert bench.requests == []
    assert (await bench.grant()).lease_owner is None
    assert await bench.attempt(attempt_id) == ("pending", None)


async def test_a_code_does_not_wait_for_a_back_off(bench: Bench) -> None:
    """Syncaroo fails for hours; an admin who comes back with a code is served at once."""
    await bench.authorise()
    bench.order("token_status", status=503)
    worker = bench.worker(delays=(timedelta(hours=1),))
    await worker.refresher.refresh_if_due()
    waiting = await bench.grant()
    attempt_id = await bench.begin()
    await consume(worker, [bench.code_received(attempt_id, "not-a-code")])
    assert await bench.grant() == waiting, "a refused code leaves the back-off as it was"
    attempt_id, code = await bench.begin(), bench.issue_code()
    await consume(worker, [bench.code_received(attempt_id, code)])
    row = await bench.grant()
    assert (row.rt_version, row.lease_until, row.attempts) == (2, None, 0)


async def test_a_pair_that_the_store_does_not_take_reaches_its_attempt_later(bench: Bench) -> None:
    """T-RT-DBFAIL, T-SECRETS-AMQP"""
    attempt_id, code = await bench.begin(), bench.issue_code()
    worker = bench.worker()
    worker.grants.failures = 1
    await worker.handler([bench.code_received(attempt_id, code)])
    assert (await bench.attempt(attempt_id))[0] == "pending"
    await bench.worker().handler(bench.spool.deliveries())
    assert await bench.attempt(attempt_id) == ("active", None)
    assert await bench.events() == ["active"]
    assert await bench.holds_live_pair()
    assert bench.requests == ["issued"]


async def test_a_code_that_was_overtaken_changes_nothing(bench: Bench) -> None:
    """Its worker slept past its lease, and another pair came first."""
    attempt_id, code = await bench.begin(), bench.issue_code()
    worker = bench.worker()
    worker.client.let_go.clear()
    task = asyncio.create_task(worker.handler([bench.code_received(attempt_id, code)]))
    await worker.client.asked.wait()
    await bench.change(rt_version=7)
    before = await bench.grant()
    worker.client.let_go.set()
    await task
    assert await bench.grant() == before
    assert (await bench.attempt(attempt_id))[0] == "failed"


async def test_a_code_sealed_with_another_key_fails(bench: Bench) -> None:
    attempt_id = await bench.begin()
    message = bench.code_received(attempt_id, "code", key=Fernet.generate_key().decode())
    await bench.worker().handler([message])
    assert (await bench.attempt(attempt_id))[0] == "failed"
    assert bench.requests == []


async def test_a_code_of_no_known_attempt_is_parked(bench: Bench) -> None:
    with pytest.raises(Permanent, match="unknown_attempt"):
        await bench.worker().handler([bench.code_received("nobody", "code")])
    assert bench.requests == []


async def test_a_message_for_another_stage_is_parked(bench: Bench) -> None:
    stray = Delivery(b'{"connectionId": 1}', {"schema": "ResyncWanted"}, "token.0")
    with pytest.raises(Permanent, match="unexpected_message"):
        await bench.worker().handler([stray])
