"""The fetch queue's flow: webhooks and wishes for a resync mark targets; what is unmapped goes on to reconcile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from common import tracing
from common.broker.consumer import Delivery
from common.broker.following import followed
from common.broker.outgoing import outgoing, outgoing_dead
from common.broker.publisher import Publisher
from common.errors import Permanent
from common.logs import get_logger
from common.urls import AllowedHosts
from schemas.messages import ListingUnmapped, ResyncWanted, UnusableWebhook, WebhookReceived
from workers.fetch.store.marks import MarkStore

log = get_logger(__name__)


class MarkHandler:
    """What the fetch queue brings: webhooks and wishes for a resync."""

    def __init__(
        self,
        store: MarkStore,
        publisher: Publisher,
        allowed: AllowedHosts,
        wake: Callable[[], None],
        look: Callable[[], None] = lambda: None,
    ) -> None:
        """`wake` says that targets are wanted, `look` that connections are to be read again."""
        self._store = store
        self._publisher = publisher
        self._allowed = allowed
        self._wake = wake
        self._look = look

    async def __call__(self, deliveries: Sequence[Delivery]) -> None:
        messages = [delivery.message() for delivery in deliveries]
        webhooks: list[WebhookReceived] = []
        traces: dict[str, str] = {}
        missed: set[int] = set()
        for delivery, message in zip(deliveries, messages, strict=True):
            with followed(delivery):
                match message:
                    case WebhookReceived(action="unmapped"):
                        # Numbers are given in the order of arrival: a webhook before it must not count as a later one.
                        await self._mark(webhooks, traces)
                        webhooks = []
                        await self._unmap(message)
                    case WebhookReceived():
                        self._allowed.check(message.url)  # a replayed one may still be forbidden
                        webhooks.append(message)
                        if trace := tracing.current():
                            traces[message.delivery_id] = trace
                        log.debug("webhook.taken_up")
                    case ResyncWanted(connection_id=connection_id, location_id=None, reason="resync"):
                        missed.add(connection_id)  # many targets: marked apart, so that no webhook waits behind them
                    case ResyncWanted():
                        log.info("resync.wanted", targets=await self._store.mark_known(message))
                    case UnusableWebhook():
                        await self._publisher.publish(outgoing_dead(message, "fetch", "unusable_webhook"))
                    case _:
                        raise Permanent("unreadable_message", "not for this queue")
        await self._mark(webhooks, traces)
        await self._miss(missed)
        self._wake()

    async def _mark(self, webhooks: Sequence[WebhookReceived], traces: Mapping[str, str]) -> None:
        if webhooks:
            await self._store.mark(webhooks, traces)

    async def _miss(self, connections: Collection[int]) -> None:
        if connections:
            await self._store.miss(connections)
            self._look()

    async def _unmap(self, webhook: WebhookReceived) -> None:
        message = ListingUnmapped(
            connection_id=webhook.connection_id,
            url=webhook.url,
            number=await self._store.unmap(webhook),
            delivery_id=webhook.delivery_id,
            received_at=webhook.received_at,
        )
        await self._publisher.publish(outgoing(message, "reconcile", webhook.connection_id))
