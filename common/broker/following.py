"""Following a message: while one is handled, log lines carry its ids, and its trace goes on with a span for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from common import tracing
from common.codec import decode
from common.errors import BadJson
from common.logs import bound

if TYPE_CHECKING:
    from common.broker.consumer import Delivery


class _Source(msgspec.Struct, frozen=True, rename="camel"):
    delivery_id: str | None = None


class _Ids(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of any message to tell which one it is."""

    connection_id: int | None = None
    delivery_id: str | None = None
    source: _Source | None = None


class InHand:
    """Messages that are being handled, each in its own trace; `deliveries` are those that are not done."""

    def __init__(self, queue: str, deliveries: Sequence[Delivery]) -> None:
        self.deliveries = list(deliveries)
        self._spans: list[ExitStack] = []
        if tracing.is_on():
            self._spans = [ExitStack() for _ in deliveries]
            pairs = zip(self._spans, deliveries, strict=True)
            self.deliveries = [replace(one, span=span.enter_context(_begun(queue, one))) for span, one in pairs]

    def done(self, count: int) -> None:
        """The first of them are."""
        for span in self._spans[:count]:
            span.close()
        del self._spans[:count], self.deliveries[:count]

    def failed(self, error: BaseException) -> None:
        """All that are not done have."""
        for span in self._spans:
            span.__exit__(type(error), error, error.__traceback__)


@contextmanager
def in_hand(queue: str, deliveries: Sequence[Delivery]) -> Iterator[InHand]:
    """Handling these: each continues its own trace. One alone is followed at once; of several, follow each in turn."""
    hand = InHand(queue, deliveries)
    try:
        with followed(hand.deliveries[0]) if len(deliveries) == 1 else nullcontext():
            yield hand
    except BaseException as error:
        hand.failed(error)
        raise
    hand.done(len(hand.deliveries))


@contextmanager
def followed(delivery: Delivery) -> Iterator[None]:
    """Log lines within carry the message's ids; what is published or written within is of its trace."""
    with bound(**delivery.ids), delivery.span.current() if delivery.span else nullcontext():
        yield


def ids_of(delivery: Delivery) -> dict[str, Any]:
    """What log lines about it carry: `connection_id`, `delivery_id` (of the webhook behind it), `trace_id`."""
    found = _read(delivery.body)
    delivery_id = found.delivery_id or (found.source.delivery_id if found.source else None)
    trace_id = tracing.trace_id_of(traceparent_of(delivery)) if tracing.is_on() else None
    ids = {"connection_id": found.connection_id, "delivery_id": delivery_id, "trace_id": trace_id}
    return {name: value for name, value in ids.items() if value is not None}


def _read(body: bytes) -> _Ids:
    try:
        return decode(body, _Ids)
    except BadJson:  # the handler's to judge
        return _Ids()


def traceparent_of(delivery: Delivery) -> str | None:
    """What it was sent with, if that is one: strangers may send anything."""
    found = delivery.headers.get(tracing.HEADER)
    return found if isinstance(found, str) and tracing.trace_id_of(found) else None


def _begun(queue: str, delivery: Delivery) -> Any:
    ids = delivery.ids
    attributes: tracing.Attributes = {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": queue,
        "messaging.rabbitmq.destination.routing_key": delivery.routing_key,
        "messaging.message.body.size": len(delivery.body),
        "gateway.connection_id": ids.get("connection_id"),
        "gateway.delivery_id": ids.get("delivery_id"),
        "gateway.attempt": delivery.attempt,
        "gateway.redelivered": delivery.redelivered,
    }
    return tracing.begun(f"process {queue}", "consumer", attributes, parent=traceparent_of(delivery))
