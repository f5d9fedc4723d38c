"""Targets on both databases: wanted, claimed with a lease and a share of the budget, answered, put off, parked."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from common.codec import decode
from common.store.engine import Store
from common.store.targets import Wanted, look_again, want
from schemas.messages import PlatformIds, Reason, ResyncWanted, WebhookReceived
from schemas.tables import BudgetRow, ConnectionRow, GrantRow, ParkedRow, TargetRow, table_of
from tests.component.target_parts import HOUR, NOW, Process, authorise, process
from workers.fetch.claim import Claim
from workers.fetch.store.claims import LEASE
from workers.fetch.walk import Walk, saved

BASE = "https://api.syncaroo.com/v1/locations"
URL = f"{BASE}/1198"

_target = table_of(TargetRow)


@pytest.fixture
async def store(store: Store) -> Store:
    """One that has a grant."""
    await authorise(store)
    return store


async def wish(
    store: Store, url: str = URL, reason: Reason = "webhook", delivery: str | None = "d1", **more: Any
) -> None:
    mapping = PlatformIds(location_id=more.get("location_id"))
    async with store.transaction() as transaction:
        await want(transaction, [Wanted(more.get("connection_id", 99), url, mapping, reason, delivery)])


async def change(store: Store, url: str = URL, **values: Any) -> None:
    """What time and other processes do to a target."""
    async with store.transaction() as transaction:
        await transaction.execute(update(_target).where(_target.c.url == url).values(values))


async def row(store: Store, url: str = URL) -> Any:
    async with store.reading() as transaction:
        return await transaction.row(_target.select().where(_target.c.url == url))


async def rows(store: Store, table: type[Any]) -> list[Any]:
    async with store.reading() as transaction:
        return list(await transaction.rows(table_of(table).select()))


async def add(store: Store, table: type[Any], *values: dict[str, Any]) -> None:
    async with store.transaction() as transaction:
        await transaction.execute(table_of(table).insert(), list(values))


async def take(targets: Process) -> Claim:
    claims, _ = await targets.claim(10)
    assert len(claims) == 1
    return claims[0]


async def nothing(targets: Process) -> bool:
    """Whether there is nothing to claim, by either question."""
    claims, _ = await targets.claim(10)
    return not claims and not await targets.anything_due()


def connection(connection_id: int, state: str = "confirmed", **more: Any) -> dict[str, Any]:
    values = {"connection_id": connection_id, "user_id": "1", "state": state, "created_at": datetime.now(UTC)}
    return {**values, **more}


# --- wanted, claimed, answered ----------------------------------------------------------------------------------------


async def test_a_webhook_makes_its_target_due_once(store: Store, other: Store) -> None:
    await wish(store, delivery="d1", location_id="L1")
    await wish(store, delivery="d2")
    targets = process(store)
    assert await targets.anything_due()

    claim = await take(targets)

    wanted = await row(store)
    assert (claim.connection_id, claim.url, claim.host) == (99, URL, "api.syncaroo.com")
    assert claim.started > wanted.wanted == wanted.asked == claim.asked > 0
    assert (claim.reason, claim.delivery_id, claim.attempts, claim.second_look) == ("webhook", "d2", 0, False)
    assert claim.mapping.location_id == "L1", "a webhook that says less takes nothing away"
    assert await nothing(targets), "it is leased"
    assert await nothing(process(other)), "for everybody"


async def test_an_answered_target_rests(store: Store) -> None:
    await wish(store)
    targets = process(store)
    await change(store, attempts=3, last_error="boom")
    claim = await take(targets)
    await targets.answered(claim, 200)

    found = await row(store)
    assert (found.answered, found.lease_owner, found.lease_until) == (claim.started, None, None)
    assert (found.attempts, found.last_status, found.last_error) == (0, 200, None)
    assert await nothing(targets)


async def test_a_webhook_during_the_fetch_makes_it_due_again(store: Store) -> None:
    """T-COALESCE-RACE."""
    await wish(store, delivery="d1")
    targets = process(store)
    first = await take(targets)
    await wish(store, delivery="d2")
    assert await nothing(targets), "one at a time"
    await targets.answered(first, 200)

    second = await take(targets)

    assert (second.delivery_id, second.asked > first.started) == ("d2", True)


async def test_a_target_is_asked_at_most_once_per_interval(store: Store) -> None:
    await wish(store)
    targets = process(store, interval=HOUR)
    await targets.answered(await take(targets), 200)
    await wish(store)
    assert await nothing(targets)

    await change(store, not_before=datetime.now(UTC) - timedelta(seconds=1))

    await take(targets)


async def test_webhooks_come_before_resyncs_and_keep_their_place(store: Store) -> None:
    urls = [f"{BASE}/{number}" for number in range(3)]
    await wish(store, urls[0], "resync", None)
    await wish(store, urls[1], "webhook", "d1")
    await wish(store, urls[2], "webhook", "d2")
    await wish(store, urls[2], "resync", None)  # it was urgent already
    targets = process(store)

    claims, _ = await targets.claim(3)

    told = [(claim.url, claim.reason, claim.delivery_id) for claim in claims]
    assert told == [(urls[1], "webhook", "d1"), (urls[2], "webhook", "d2"), (urls[0], "resync", None)]
    assert [claim.asked > 0 for claim in claims] == [True, True, False]


async def test_one_batch_may_name_a_target_twice(store: Store) -> None:
    webhooks = [
        WebhookReceived(
            delivery_id=f"d{number}",
            connection_id=99,
            url=url,
            mapping=PlatformIds(location_id="L1"),
            received_at=datetime.now(UTC),
        )
        for number, url in enumerate([URL, f"{BASE}/2", URL])
    ]
    await process(store).mark(webhooks)
    claims, _ = await process(store).claim(10)
    assert sorted((claim.url, claim.delivery_id) for claim in claims) == [(URL, "d2"), (f"{BASE}/2", "d1")]


# --- failing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("counts", "attempts"), [(True, 1), (False, 0)])
async def test_put_off_until_its_time_even_by_a_webhook(store: Store, counts: bool, attempts: int) -> None:
    await wish(store)
    targets = process(store)
    await targets.put_off(await take(targets), HOUR, "x" * 1000, status=503, counts=counts)
    await wish(store)  # a target that is failing keeps its back-off
    assert await nothing(targets)
    found = await row(store)
    assert (found.attempts, found.last_status, len(found.last_error)) == (attempts, 503, 200)

    await change(store, not_before=datetime.now(UTC) - timedelta(seconds=1))

    assert (await take(targets)).attempts == attempts


async def test_a_parked_target_waits_for_the_next_webhook(store: Store) -> None:
    await wish(store, location_id="L1")
    targets = process(store)
    await targets.put_off(await take(targets), NOW, "boom")
    await targets.park(await take(targets), "refused", status=403)
    assert await nothing(targets)
    (parked,) = await rows(store, ParkedRow)
    assert (parked.reason, parked.connection_id, parked.attempts, parked.queue) == ("refused", 99, 2, "syncaroo.fetch")
    replay = decode(parked.body, WebhookReceived)
    assert (replay.url, replay.delivery_id, replay.mapping.location_id) == (URL, "d1", "L1")

    await wish(store, delivery="d2")

    claim = await take(targets)
    assert (claim.delivery_id, claim.attempts) == ("d2", 0), "it starts afresh"


async def test_a_webhook_during_the_last_attempt_is_not_parked_with_it(store: Store) -> None:
    """T-COALESCE-RACE."""
    await wish(store)
    targets = process(store)
    claim = await take(targets)
    await wish(store, delivery="d2")
    await targets.park(claim, "refused", status=403)
    assert (await take(targets)).delivery_id == "d2"


# --- leases -----------------------------------------------------------------------------------------------------------


async def test_who_lost_the_lease_changes_nothing_any_more(store: Store, other: Store) -> None:
    await wish(store)
    slow, quick = process(store), process(other)
    late = await take(slow)
    await change(store, lease_until=datetime.now(UTC) - timedelta(seconds=1))

    claim = await take(quick)
    before = await row(store)
    await slow.renew([late])
    await slow.answered(late, 200)
    await slow.put_off(late, HOUR, "boom")
    await slow.park(late, "refused")
    await slow.release([late])

    assert claim.started > late.started
    assert await row(store) == before
    assert await rows(store, ParkedRow) == []


async def test_a_lease_that_ran_out_is_not_renewed(store: Store) -> None:
    await wish(store)
    targets = process(store)
    claim = await take(targets)
    ran_out = datetime.now(UTC) - timedelta(seconds=1)
    await change(store, lease_until=ran_out)
    await targets.renew([claim])
    assert (await row(store)).lease_until == ran_out


async def test_a_lease_is_renewed_and_given_back(store: Store, other: Store) -> None:
    await wish(store)
    targets = process(store)
    claim = await take(targets)
    await change(store, lease_until=datetime.now(UTC) + LEASE / 5)
    await targets.renew([claim])
    assert (await row(store)).lease_until > datetime.now(UTC) + LEASE / 2

    await targets.release([claim])

    assert (await take(process(other))).started > claim.started


async def test_claims_of_several_processes_never_overlap(store: Store, other: Store) -> None:
    for number in range(40):
        await wish(store, f"{BASE}/{number}")

    async def all_it_can(targets: Process) -> list[Claim]:
        had: list[Claim] = []
        while await targets.anything_due():
            claims, _ = await targets.claim(3)
            had += claims
        return had

    shares = await asyncio.gather(*(all_it_can(process(one)) for one in (store, other, store, other)))

    claims = [claim for share in shares for claim in share]
    assert len(claims) == 40
    assert len({claim.url for claim in claims}) == 40
    assert len({claim.started for claim in claims}) == 40


# --- the budget of a host ---------------------------------------------------------------------------------------------


async def test_processes_share_one_budget(store: Store, other: Store) -> None:
    for number in range(20):
        await wish(store, f"{BASE}/{number}")
    began = time.monotonic()

    answers = await asyncio.gather(*(process(one, rate=5).claim(20) for one in (store, other)))

    had = sum(len(claims) for claims, _ in answers)
    assert 5 <= had <= 5 + 5 * (time.monotonic() - began)


async def test_an_empty_budget_keeps_targets_due_and_pages_waiting(store: Store, other: Store) -> None:
    await wish(store)
    await wish(store, f"{BASE}/2")
    claims, _ = await process(store, rate=0.001).claim(10)
    assert [claim.url for claim in claims] == [URL]
    assert await process(other, rate=0.001).next_call(claims[0]) is None
    assert (await row(store, f"{BASE}/2")).lease_owner is None

    number = await process(other, rate=0.001).next_call(replace(claims[0], host="eu.api.syncaroo.com"))

    assert number is not None, "each host has its own"
    assert number > claims[0].started


async def test_a_blocked_host_is_left_alone(store: Store, other: Store) -> None:
    await wish(store)
    await wish(store, "https://eu.api.syncaroo.com/v1/locations/1")
    targets = process(store)
    claims, _ = await targets.claim(10)
    await targets.block_host("api.syncaroo.com", HOUR)
    await targets.release(claims)
    assert await process(other).next_call(claims[0]) is None

    claims, _ = await process(other).claim(10)

    assert [claim.host for claim in claims] == ["eu.api.syncaroo.com"]
    passed = datetime.now(UTC) - timedelta(seconds=1)
    async with store.transaction() as transaction:
        await transaction.execute(update(table_of(BudgetRow)).values(blocked_until=passed))
    assert (await take(targets)).host == "api.syncaroo.com"


# --- who may be asked for ---------------------------------------------------------------------------------------------


async def test_a_revoked_connection_is_not_claimed(store: Store) -> None:
    await add(store, ConnectionRow, connection(99, "revoked"), connection(100))
    await wish(store)
    targets = process(store)
    assert await nothing(targets)

    await wish(store, f"{BASE}/2", connection_id=100)

    assert (await take(targets)).connection_id == 100


@pytest.mark.parametrize(
    ("state", "valid"),
    [("none", HOUR), ("needs_authorisation", HOUR), ("active", -HOUR), ("active", timedelta(seconds=4))],
)
async def test_without_a_valid_token_nothing_is_claimed(store: Store, state: str, valid: timedelta) -> None:
    await wish(store)
    await authorise(store, state=state, valid=valid)
    assert await nothing(process(store))
    assert await process(store).claim(10) == ([], None)
    assert (await row(store)).started == 0, "nor spent"


async def test_a_rejected_token_is_only_that_version(store: Store) -> None:
    await authorise(store, version=2)
    await wish(store)
    targets = process(store)
    await targets.reject_token(1)
    newer = await targets.newer_grant(1)
    assert newer is not None
    assert (newer.rt_version, newer.sealed_pair) == (2, "pair 2")
    assert await targets.newer_grant(2) is None
    assert await targets.anything_due()

    await targets.reject_token(2)

    assert await nothing(targets)
    assert await targets.newer_grant(1) is None
    (grant,) = await rows(store, GrantRow)
    assert grant.refresh_at <= datetime.now(UTC), "it is to be renewed at once"


async def test_a_refusal_from_before_the_clock_was_put_back_holds_up_no_renewal(store: Store) -> None:
    """T-RT-CLOCK: by the clock as it is now it lies an hour ahead."""
    await authorise(store)
    async with store.transaction() as transaction:
        ahead = await transaction.now() + timedelta(hours=1)
        await transaction.execute(table_of(GrantRow).update().values(refused_at=ahead))
    await process(store).reject_token(1)
    (grant,) = await rows(store, GrantRow)
    assert grant.refresh_at <= datetime.now(UTC)


async def test_a_rejected_token_does_not_bring_a_dead_grant_to_life(store: Store) -> None:
    await authorise(store, state="needs_authorisation")
    await process(store).reject_token(1)
    (grant,) = await rows(store, GrantRow)
    assert (grant.state, grant.refresh_at) == ("needs_authorisation", None)


# --- second looks -----------------------------------------------------------------------------------------------------


async def look(store: Store, after: timedelta) -> None:
    async with store.transaction() as transaction:
        await look_again(transaction, {(99, URL): await transaction.now() + after})


async def test_a_second_look_at_its_time_and_once(store: Store) -> None:
    await wish(store)
    targets = process(store)
    await targets.answered(await take(targets), 200)
    await look(store, HOUR)
    assert await nothing(targets)
    await look(store, -HOUR)

    claim = await take(targets)

    assert (claim.second_look, claim.reason, claim.delivery_id) == (True, "webhook", "d1")
    assert await nothing(targets), "it is leased"
    await targets.answered(claim, 200)
    assert (await row(store)).recheck_at is None
    assert await nothing(targets)


async def test_a_second_look_wanted_before_its_answer_is_written_stays(store: Store) -> None:
    await wish(store)
    targets = process(store)
    claim = await take(targets)
    await look(store, -HOUR)  # the page travelled faster
    await targets.answered(claim, 200)
    assert (await take(targets)).second_look


async def test_a_newer_webhook_is_looked_at_anyway(store: Store) -> None:
    await wish(store)
    targets = process(store)
    await targets.answered(await take(targets), 200)
    await wish(store, delivery="d2")
    await look(store, -HOUR)
    assert (await row(store)).recheck_at is None
    assert not (await take(targets)).second_look


@pytest.mark.parametrize("put_off", [False, True])
async def test_a_resync_in_between_leaves_the_second_look(store: Store, put_off: bool) -> None:
    """It may read the API while that still lags behind the webhook."""
    targets = process(store)
    await wish(store)
    await targets.answered(await take(targets), 200)
    await look(store, HOUR)
    await wish(store, reason="resync")
    claim = await take(targets)
    assert claim.is_resync
    if put_off:
        await targets.put_off(claim, NOW, "answered 500", status=500)
    else:
        await targets.answered(claim, 200)
    assert (await row(store)).recheck_at is not None


async def test_a_dead_workers_second_look_is_taken_up_again(store: Store, other: Store) -> None:
    await wish(store)
    targets = process(store)
    await targets.answered(await take(targets), 200)
    await look(store, -HOUR)
    dead = await take(targets)
    passed = datetime.now(UTC) - timedelta(seconds=1)
    assert (await row(store)).recheck_at is not None
    await change(store, lease_until=passed, recheck_at=passed)

    claim = await take(process(other))

    assert claim.second_look
    assert claim.started > dead.started


async def test_a_second_look_that_fails_is_put_off(store: Store) -> None:
    await wish(store)
    targets = process(store)
    await targets.answered(await take(targets), 200)
    await look(store, -HOUR)
    await targets.put_off(await take(targets), HOUR, "boom", status=503)
    assert await nothing(targets)
    passed = datetime.now(UTC) - timedelta(seconds=1)
    await change(store, not_before=passed, recheck_at=passed)
    claim = await take(targets)
    assert (claim.second_look, claim.attempts) == (True, 1)


# --- resyncs ----------------------------------------------------------------------------------------------------------


async def drain(targets: Process) -> list[Claim]:
    """Answer all that is due, and all that comes due by that, in the order in which it is claimed."""
    had: list[Claim] = []
    while claims := (await targets.claim(10))[0]:
        for claim in claims:
            await targets.answered(claim, 200)
        had += claims
    return had


async def test_a_resync_wants_what_is_known_and_the_collections_around(store: Store) -> None:
    await wish(store, location_id="1198")
    await wish(store, f"{BASE}/1199/resources/7", location_id="1199")
    await wish(store, f"{BASE}/1", connection_id=100)
    targets = process(store)
    await drain(targets)

    found = await targets.mark_known(ResyncWanted(connection_id=99, location_id="1198", reason="hand"))
    claims = await drain(targets)
    assert found == 2
    assert [claim.url for claim in claims] == [f"{URL}/resources", URL], "the items after the collections"
    assert {(claim.reason, claim.delivery_id) for claim in claims} == {("hand", None)}

    found = await targets.mark_known(ResyncWanted(connection_id=99))
    claims = await drain(targets)
    item = f"{BASE}/1199/resources/7"
    assert found == len(claims)
    assert {URL, f"{URL}/resources", item, f"{item}/rates", f"{BASE}/1199/resources"} <= {one.url for one in claims}
    assert {claim.connection_id for claim in claims} == {99}


# --- a walk that goes on ----------------------------------------------------------------------------------------------


def far(targets_claim: Claim, url: str = f"{BASE}?page=2") -> Walk:
    """The walk of a claim that has seen its first page."""
    return Walk(url, targets_claim.first, frozenset({URL}), 1, "list", frozenset({"7"}), (), 3)


async def test_a_walk_goes_on_in_another_process(store: Store, other: Store) -> None:
    """A worker that dies between two pages: its successor asks for the next one, and answers what the first began."""
    await wish(store)
    first = await take(process(store))
    assert first.walk is None
    assert await process(store).next_call(first, saved(far(first))) is not None
    assert (await row(store)).walk is None, "only whoever holds the lease tells how far it has come"
    dead = process(store)
    await change(store, lease_until=None, not_before=datetime.now(UTC))
    first = await take(dead)
    await dead.next_call(first, saved(far(first)))
    await change(store, lease_until=None, not_before=datetime.now(UTC))

    targets = process(other)
    second = await take(targets)

    assert second.walk == far(first)
    assert (second.first, second.started > first.started) == (first.started, True)
    await targets.answered(second, 200)
    after = await row(store)
    assert (after.answered, after.walk, after.walk_at) == (first.started, None, None)


async def test_a_walk_begins_again_for_what_came_later_or_when_it_is_old(store: Store) -> None:
    await wish(store)
    targets = process(store)
    first = await take(targets)
    await targets.put_off(first, NOW, "answered 503", walk=saved(far(first)))
    await wish(store)
    again = await take(targets)
    assert again.walk is None, "a webhook came after it had begun"
    await targets.put_off(again, NOW, "answered 503", walk=saved(far(again)))
    await change(store, walk_at=datetime.now(UTC) - timedelta(minutes=11))
    old = await take(targets)
    assert old.walk is None, "it has missed too much"
    await targets.put_off(old, NOW, "answered 503", walk=saved(far(old)))
    stale = await take(targets)
    assert stale.walk == far(old)
    await targets.put_off(stale, NOW, "answered 503")
    kept = await take(targets)
    assert kept.walk == far(old), "no further than before"
    await targets.put_off(kept, NOW, "answered 503", walk="")
    assert (await take(targets)).walk is None, "its link was refused"
