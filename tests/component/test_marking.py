"""The fetch queue's batches: what comes in one batch is numbered in the order in which it came."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from common.broker.consumer import Delivery
from common.broker.outgoing import Outgoing
from common.broker.publisher import PUBLISH_SECONDS
from common.codec import decode, dumps
from common.store.engine import Store
from common.urls import AllowedHosts
from schemas.messages import ListingUnmapped, PlatformIds, WebhookReceived
from schemas.tables import TargetRow, table_of
from tests.component.conftest import lock_waiters
from tests.fixtures.database import ON_POSTGRESQL
from tests.waiting import until
from workers.fetch.handler import MarkHandler
from workers.fetch.store.marks import MarkStore

URL = "https://api.syncaroo.com/v1/locations/5/resources/7"


class Recorder:
    """A publisher that takes everything."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []

    async def publish(self, message: Outgoing, *, seconds: float = PUBLISH_SECONDS) -> None:
        self.sent.append(message)


def delivery(action: str | None) -> Delivery:
    message = WebhookReceived(
        delivery_id="d", connection_id=99, url=URL, mapping=PlatformIds(), action=action, received_at=datetime.now(UTC)
    )
    return Delivery(dumps(message), {"schema": "WebhookReceived"}, "fetch.1")


@pytest.mark.parametrize(
    ("actions", "mapped_again"), [([None, "unmapped"], False), (["unmapped", None], True), (["unmapped", "new"], True)]
)
async def test_only_a_webhook_after_unmapped_counts_as_a_later_one(
    store: Store, actions: Sequence[str | None], mapped_again: bool
) -> None:
    """CONTRACT §4, `unmapped`: a webhook before it in the same batch must not bring the listing back."""
    publisher = Recorder()
    targets = MarkStore(store)
    mark = MarkHandler(targets, publisher, AllowedHosts(["api.syncaroo.com"], False), lambda: None)  # type: ignore[arg-type]  # a stand-in

    await mark([delivery(action) for action in actions])

    unmapped = decode(publisher.sent[0].body, ListingUnmapped)
    async with store.reading() as transaction:
        target = await transaction.row(table_of(TargetRow).select())
    assert target is not None
    assert (target.asked > unmapped.number) is mapped_again


@ON_POSTGRESQL
async def test_a_webhook_that_waits_for_a_claim_counts_as_later_than_it(database_url: str, store: Store) -> None:
    """Else the claim's answer, which does not know of the webhook, would be taken for the answer to it. On SQLite
    transactions run one after another."""
    table, other = table_of(TargetRow), Store(database_url)
    webhook = decode(delivery(None).body, WebhookReceived)
    await MarkStore(store).mark([webhook])
    try:
        async with other.transaction() as claim:
            await claim.rows(table.select().with_for_update())
            marking = asyncio.create_task(MarkStore(store).mark([webhook]))
            await until(lambda: lock_waiters(store), what="the webhook waits for the claim")
            started = await claim.number()
            await claim.execute(table.update().values(started=started))
        await marking
    finally:
        await other.close()
    async with store.reading() as transaction:
        target = await transaction.row(table.select())
    assert target is not None
    assert target.wanted == target.asked > target.started == started
