"""`dead-letters/…`: what could not be processed, until a person replays or drops it."""

from __future__ import annotations

from datetime import datetime

import msgspec
from aiohttp import web

from common.broker.outgoing import Unroutable
from common.store.parked import Parked
from ingress.admin.answers import answer, done, missing, page_of, path_name, query_of
from ingress.admin.replaying import Broker, Replaying
from ingress.admin.rules import connection_of, cursor, queue_of, read_paging, shown_body
from ingress.admin.store.dead_letters import DeadLetterStore
from ingress.parameters import one
from ingress.problems import problem
from schemas.messages import Json


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message that could not be processed; in its `body`, text when it is not JSON, secrets are masked."""

    id: str
    queue: str
    reason: str
    connection_id: int | None
    at: datetime | None
    attempts: int
    body: Json


class Replayed(msgspec.Struct, frozen=True):
    """The queue has it again."""

    id: str
    queue: str


class DeadLetterEndpoints:
    """Parked messages."""

    def __init__(self, store: DeadLetterStore, broker: Broker, events_broker: Broker) -> None:
        self._store = store
        self._replaying = Replaying(store, broker, events_broker)

    async def list(self, request: web.Request) -> web.Response:
        """In the order of parking; `queue`, `reason` and `connectionId` filter."""
        query = query_of(request)
        paging = read_paging(query, str)
        reason = one(query, "reason")
        found = await self._store.list(queue_of(query.get("queue")), connection_of(query), reason, paging)
        more = len(found) == paging.limit
        return page_of([_shown(letter) for letter in found], cursor(found[-1].parked_id) if more else None)

    async def get(self, request: web.Request) -> web.Response:
        """One of them."""
        found = await self._store.get(path_name(request, "id"))
        return missing("dead letter") if found is None else answer(_shown(found))

    async def replay(self, request: web.Request) -> web.Response:
        """Publish it again where it came from; it is forgotten only after the broker has confirmed."""
        found = await self._store.get(path_name(request, "id"))
        if found is None:
            return missing("dead letter")
        try:
            await self._replaying.replay(found)
        except Unroutable:
            return _nobody_takes(found.routing_key)
        return answer(Replayed(found.parked_id, found.queue), 202)

    async def delete(self, request: web.Request) -> web.Response:
        """Forget it."""
        return done() if await self._store.drop(path_name(request, "id")) else missing("dead letter")


def _nobody_takes(routing_key: str) -> web.Response:
    """409: the broker answers, and waiting mends nothing."""
    detail = (
        f"No queue takes {routing_key}; the dead letter is kept. Run `gateway setup`, with the AMQP_URL and "
        "EVENTS_AMQP_URL of this process."
    )
    return problem(409, "/problems/no-queue", "No queue takes it", detail)


def _shown(parked: Parked) -> DeadLetter:
    return DeadLetter(
        id=parked.parked_id,
        queue=parked.queue,
        reason=parked.reason,
        connection_id=parked.connection_id,
        at=parked.parked_at,
        attempts=parked.attempts,
        body=shown_body(parked.body),
    )
