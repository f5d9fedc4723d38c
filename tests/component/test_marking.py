"""The fetch queue's batches: what comes in one batch is numbered in the order in which it came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest

from common.broker.consumer import Delivery
from common.broker.publisher import PUBLISH_SECONDS, Outgoing
from common.codec import decode, dumps
from common.store.engine import Store
from common.urls import AllowedHosts
from schemas.messages import ListingUnmapped, PlatformIds, WebhookReceived
from schemas.tables import TargetRow, table_of
from workers.fetch.handler import MarkHandler
from workers.fetch.store.marks import MarkStore

URL = "https://api.syncaroo.com/v1/locations/5/resources/7"


class Recorder:
    """A publisher that takes everything."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []

    async def publish(self, message: Outgoing, *, seconds: float = PUBLISH_SECONDS) -> None:
        self.sent.append(message)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    opened = Store(database_url)
    yield opened
    await opened.close()


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
    mark = MarkHandler(targets, publisher, AllowedHosts(["api.syncaroo.com"], False), lambda: None)  # type: ignore[arg-type]

    await mark([delivery(action) for action in actions])

    unmapped = decode(publisher.sent[0].body, ListingUnmapped)
    async with store.reading() as transaction:
        target = await transaction.row(table_of(TargetRow).select())
    assert target is not None
    assert (target.asked > unmapped.number) is mapped_again
