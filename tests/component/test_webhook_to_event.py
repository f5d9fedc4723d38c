"""How long it takes from a webhook to its event, by the store's clock alone, on both databases."""

from __future__ import annotations

from datetime import datetime, timedelta

from common.clock import utc_now
from common.store.engine import Store
from common.store.events import append_events
from schemas.events import GrantChanged
from schemas.messages import Source
from schemas.tables import TargetRow, table_of
from tests.component.test_relay import listing_changed, waiting
from workers.relay.metrics import Lag, RelayMetrics
from workers.relay.store.events import EventStore

URL = "https://api.syncaroo.com/v1/rates/1"
_target = table_of(TargetRow)


def source(asked: int, *, delivery_id: str | None = "d", url: str = URL) -> Source:
    return Source(
        url=url, began=1, ended=2, asked=asked, attempt=0, reason="webhook", delivery_id=delivery_id,
        fetched_at=utc_now(), status=200,
    )  # fmt: skip


async def lags(store: Store, *causes: Source | None) -> list[Lag]:
    """Of one event for each cause, published now; its webhook was the seventh number, taken up a minute ago."""
    async with store.transaction() as transaction:
        now: datetime = await transaction.now()
        key = {"connection_id": 99, "url": URL, "host": "h", "reason": "webhook"}
        await transaction.execute(_target.insert().values(**key, asked=7, asked_at=now - timedelta(minutes=1)))
        for number, cause in enumerate(causes):
            await append_events(transaction, [listing_changed(str(number), 1)], cause=cause)
    return await EventStore(store).published(await waiting(store))


async def test_an_event_of_the_latest_webhook_is_measured_from_it(store: Store) -> None:
    (lag,) = await lags(store, source(7))
    assert 0 <= lag.since_created < 30
    assert lag.since_webhook is not None
    assert 60 <= lag.since_webhook < 90


async def test_what_no_webhook_led_to_or_an_earlier_one_is_not(store: Store) -> None:
    """Of an earlier one the time is not kept: the later one has taken its place."""
    causes = (source(6), source(7, delivery_id=None), source(7, url="https://api.syncaroo.com/v1/other"), None)
    assert [lag.since_webhook for lag in await lags(store, *causes)] == [None] * 4


async def test_a_cause_of_another_kind_does_not_hold_up_the_marking(store: Store) -> None:
    async with store.transaction() as transaction:
        await append_events(transaction, [GrantChanged(state="active")], cause=GrantChanged(state="active"))
    (lag,) = await EventStore(store).published(await waiting(store))
    assert lag.since_webhook is None
    assert await waiting(store) == []


def test_both_are_shown() -> None:
    metrics = RelayMetrics()
    metrics.observe([Lag(0.2, 3.0), Lag(0.2)])
    assert metrics.webhook_to_event_seconds._sum.get() == 3.0
    assert metrics.lag_seconds._sum.get() == 0.4
