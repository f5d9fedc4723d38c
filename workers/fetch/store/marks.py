"""Marking: webhooks and wishes for a resync make targets wanted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from common.store.engine import Store
from common.store.targets import Wanted, want, want_known
from schemas.messages import ResyncWanted, WebhookReceived
from workers.fetch.store.feeds import hear, miss


class MarkStore:
    """What the fetch queue's consumer writes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def mark(self, webhooks: Sequence[WebhookReceived], traces: Mapping[str, str] | None = None) -> None:
        """Make the targets of a batch of webhooks wanted, in one transaction; `traces`: theirs, by `delivery_id`."""
        wanted = [_wanted(one, (traces or {}).get(one.delivery_id)) for one in webhooks]
        async with self._store.transaction() as transaction:
            feeds = await hear(transaction, {one.connection_id for one in webhooks})
            await want(transaction, wanted, feeds)

    async def miss(self, connections: Collection[int]) -> None:
        """Have everything known of these connections read again, soon."""
        async with self._store.transaction() as transaction:
            await miss(transaction, connections)

    async def mark_known(self, resync: ResyncWanted) -> int:
        """Make every known target of a connection wanted; how many there are."""
        return await want_known(self._store, resync.connection_id, resync.reason, resync.location_id)

    async def unmap(self, webhook: WebhookReceived) -> int:
        """A number of the store's sequence for a webhook that wants nothing; it was heard like any other."""
        async with self._store.transaction() as transaction:
            await hear(transaction, {webhook.connection_id})
            return await transaction.number()


def _wanted(one: WebhookReceived, trace: str | None) -> Wanted:
    traces = () if trace is None else (trace,)
    return Wanted(one.connection_id, one.url, one.mapping, "webhook", one.delivery_id, traces)
