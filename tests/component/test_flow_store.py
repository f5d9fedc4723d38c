"""The numbers of the flow on both databases: known rows in, known numbers out, all by the store's clock."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Table

from common.store.engine import Store
from ingress.flow import store as flow_module
from ingress.flow.flow import Attempts, Flow, GrantFlow, Held, Targets, Waiting
from ingress.flow.store import FlowStore
from schemas.tables import (
    AttemptRow,
    BudgetRow,
    ConnectionRow,
    EventRow,
    FeedRow,
    GrantRow,
    ListingRow,
    ParkedRow,
    SuspectRow,
    TargetRow,
    table_of,
)

SECOND = timedelta(seconds=1)
LATE = 10.0
"""How much older than written an age may look: the test itself takes time."""


class Rows:
    """Writes rows whose times are seconds before now, by the store's clock."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, model: Any, **values: Any) -> None:
        """Members that end in `_ago` are times; `_ago=-5` is in five seconds."""
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            times = {
                name.removesuffix("_ago"): now - SECOND * value for name, value in values.items() if "_ago" in name
            }
            plain = {name: value for name, value in values.items() if "_ago" not in name}
            table: Table = table_of(model)
            await transaction.execute(table.insert().values(**(plain | times)))

    async def target(self, name: str, **values: Any) -> None:
        url = f"https://api.syncaroo.com/{name}"
        given: dict[str, Any] = {"connection_id": 99, "url": url, "host": "api.syncaroo.com", "reason": "webhook"}
        await self.add(TargetRow, **(given | {"priority": 0, "turn": 1, "wanted": 5, "asked_at_ago": 60} | values))

    async def event(self, position: int, **values: Any) -> None:
        given: dict[str, Any] = {"connection_id": 99, "event_id": f"{position:05}", "position": position}
        given |= {"type": "listing.changed", "subject": "99/rates/1", "data": "{}", "headers": "{}"}
        await self.add(EventRow, **(given | {"created_at_ago": 10} | values))

    async def listing(self, name: str, **values: Any) -> None:
        given: dict[str, Any] = {"connection_id": 99, "listing_id": name, "scope": "/", "item_id": name}
        given |= {"own_path": f"/{name}", "attribute_type": "rates", "version": 1, "deleted": False}
        await self.add(ListingRow, **(given | values))


@pytest.fixture
def rows(store: Store) -> Rows:
    return Rows(store)


async def read(store: Store) -> Flow:
    return await FlowStore(store).read()


def is_about(seconds: float | None, expected: float) -> bool:
    return seconds is not None and expected <= seconds < expected + LATE


async def test_nothing_flows_in_an_empty_store(store: Store) -> None:
    flow = await read(store)
    assert (flow.targets, flow.attempts, flow.held, flow.grant) == (Targets(), Attempts(), Held(), GrantFlow())
    assert (flow.listings, flow.parked, flow.connections, flow.budgets) == (0, [], {}, {})
    assert flow.events.unpublished == Waiting()
    assert flow.silence.longest_seconds is None


async def test_targets_that_are_due_and_that_wait_for_their_time(store: Store, rows: Rows) -> None:
    await rows.target("due", asked_at_ago=300)
    await rows.target("leased", asked_at_ago=40, lease_owner="somebody", lease_until_ago=-10)
    await rows.target("answered", answered=5, asked_at_ago=9999)
    await rows.target("comes back", turn=0, not_before_ago=1)
    await rows.target("put off", turn=0, not_before_ago=-100, asked_at_ago=500)
    await rows.target("put off longer", turn=0, not_before_ago=-1000)
    await rows.target("resync", priority=3, reason="resync", wanted=20)
    await rows.add(ConnectionRow, connection_id=7, user_id="1", state="revoked", created_at_ago=9)
    await rows.target("nobody's", connection_id=7, asked_at_ago=9999)
    await rows.event(19, created_at_ago=800, published_at_ago=700)
    await rows.event(21, created_at_ago=200, published_at_ago=100)
    await rows.event(22, created_at_ago=90, published_at_ago=80)
    targets = (await read(store)).targets
    assert (targets.webhook.count, targets.resync.count, targets.put_off.count) == (3, 1, 2)
    assert is_about(targets.webhook.oldest_seconds, 300)
    assert is_about(targets.resync.oldest_seconds, 200), "since the first event after its wish"
    assert is_about(targets.put_off.oldest_seconds, 500)
    assert targets.next_seconds is not None
    assert 100 - LATE < targets.next_seconds <= 100


async def test_a_resync_before_any_event_is_of_unknown_age(store: Store, rows: Rows) -> None:
    await rows.target("resync", priority=2, reason="resync")
    assert (await read(store)).targets.resync == Waiting(count=1)


async def test_attempts_of_the_last_minute(store: Store, rows: Rows) -> None:
    for started, outcome, status, ago in (
        (1, "answered", 200, 5), (2, "answered", 200, 50), (3, "put_off", 503, 5), (4, "put_off", None, 5),
        (5, "gone", 404, 5), (6, "answered", 200, 75),
    ):  # fmt: skip
        await rows.add(
            AttemptRow, connection_id=99, url="u", started=started, path="/", reason="webhook", outcome=outcome,
            status=status, at_ago=ago,
        )  # fmt: skip
    attempts = (await read(store)).attempts
    assert attempts.by_outcome == {"answered": 2, "put_off": 2, "gone": 1}
    assert attempts.by_status == {"2xx": 2, "5xx": 1, "4xx": 1, "none": 1}


async def test_events_and_changes(store: Store, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "CHUNK", 2)
    for position in range(1, 6):
        await rows.event(
            position, published_at_ago=9, headers=f'{{"change":"{"created" if position < 3 else "updated"}"}}'
        )
    await rows.event(6, created_at_ago=120, headers='{"change":"deleted"}')
    await rows.event(7, published_at_ago=1, type="sync.held")
    await rows.event(8)
    await rows.event(9, created_at_ago=400, published_at_ago=300)
    events = (await read(store)).events
    assert events.unpublished.count == 2
    assert is_about(events.unpublished.oldest_seconds, 120)
    assert events.changes_last_minute == {"created": 2, "updated": 3, "other": 1}
    assert events.published_last_minute == 6


async def test_published_is_found_before_a_long_line(store: Store, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "AHEAD", 2)
    await rows.event(1, published_at_ago=5)
    for position in range(2, 8):
        await rows.event(position)
    assert (await read(store)).events.published_last_minute == 1


async def test_what_waits_for_a_person(store: Store, rows: Rows) -> None:
    for number, (queue, reason, ago) in enumerate(
        (("q.fetch", "refused", 50), ("q.fetch", "refused", 10), ("q.a", "x", 5))
    ):
        await rows.add(
            ParkedRow, parked_id=str(number), queue=queue, reason=reason, routing_key="k", schema_name="S", body=b"",
            attempts=0, parked_at_ago=ago,
        )  # fmt: skip
    for connection_id, name, state in ((99, "1", "held"), (99, "2", "held"), (7, "3", "held"), (7, "4", "pending")):
        await rows.add(SuspectRow, connection_id=connection_id, listing_id=name, state=state, walk=1, since_ago=1)
    flow = await read(store)
    assert [(one.queue, one.reason, one.count) for one in flow.parked] == [("q.a", "x", 1), ("q.fetch", "refused", 2)]
    assert is_about(flow.parked[1].oldest_seconds, 50)
    assert flow.held == Held(count=3, by_connection={"99": 2, "7": 1})


async def test_the_grant(store: Store, rows: Rows) -> None:
    await rows.add(
        GrantRow, account="syncaroo", state="active", rt_version=1, attempts=2, last_error="503", expires_at_ago=-300,
        refresh_at_ago=5, lease_owner="somebody", lease_until_ago=-10, sealed_pair="sealed",
    )  # fmt: skip
    grant = (await read(store)).grant
    assert (grant.state, grant.renewing, grant.attempts, grant.last_error) == ("active", True, 2, "503")
    assert grant.expires_in_seconds is not None
    assert 300 - LATE < grant.expires_in_seconds <= 300
    assert grant.refresh_in_seconds is not None
    assert -5 - LATE < grant.refresh_in_seconds <= -5


async def test_connections_their_silence_and_the_budget(
    store: Store, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_module, "SHOWN", 2)
    for number, state, ago in ((1, "confirmed", 50), (2, "confirmed", 500), (3, "revoked", 5000), (4, "authorised", 5)):
        await rows.add(ConnectionRow, connection_id=number, user_id="1", state=state, created_at_ago=9)
        silent = {"silent_since_ago": 1} if number in (2, 3) else {}
        await rows.add(FeedRow, connection_id=number, heard_at_ago=ago, first_read=False, **silent)
    await rows.add(FeedRow, connection_id=5, first_read=False)
    await rows.add(BudgetRow, host="a", tokens=3.5, refilled_at_ago=1, blocked_until_ago=-60)
    await rows.add(BudgetRow, host="b", tokens=0.0, refilled_at_ago=1, blocked_until_ago=60)
    flow = await read(store)
    assert flow.connections == {"confirmed": 2, "revoked": 1, "authorised": 1}
    assert set(flow.silence.by_connection) == {"1", "2"}, "the longest silent, and nobody who has ended"
    assert is_about(flow.silence.longest_seconds, 500)
    assert flow.silence.unusual == 1
    assert flow.budgets["a"].tokens == 3.5
    assert 60 - LATE < flow.budgets["a"].blocked_seconds <= 60
    assert flow.budgets["b"].blocked_seconds == 0


async def test_listings_that_are_there_are_counted_up_to_the_bound(
    store: Store, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rows.listing("1")
    await rows.listing("2")
    await rows.listing("gone", deleted=True)
    await rows.listing("never seen", version=0)
    assert (await read(store)).listings == 2
    monkeypatch.setattr(flow_module, "BOUND", 1)
    assert (await read(store)).listings == 1
