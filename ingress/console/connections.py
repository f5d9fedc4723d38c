"""Held listings and a person's decision about them; reading everything of a connection or location again."""

from __future__ import annotations

from itertools import groupby
from typing import Any, get_args

from aiohttp import web

from common.codec import decode
from common.logs import get_logger
from common.words import things
from ingress.admin.rules import cursor, read_name, read_paging
from ingress.admin.store.connections import Connection, ConnectionStore
from ingress.admin.store.held import Decision, HeldStore
from ingress.console.live import connection_of
from ingress.console.rules import ROOT, title_of
from ingress.console.visit import Visit, needed
from ingress.parameters import BadInput, positive_number

HELD = f"{ROOT}/held"
PAGE = 100

log = get_logger(__name__)


class Connections:
    """Pages and actions."""

    def __init__(self, connections: ConnectionStore, held: HeldStore) -> None:
        self._connections = connections
        self._held = held

    async def list_held(self, visit: Visit) -> web.StreamResponse:
        """GET: by connection; `connection` filters."""
        query = visit.query
        paging = read_paging(query | {"limit": str(PAGE)}, int, str)
        found = await self._held.list(connection_of(query), paging)
        last = found[-1] if len(found) == paging.limit else None
        context = {
            "groups": [(key, list(ones)) for key, ones in groupby(found, lambda one: one.connection_id)],
            "title_of": lambda one: title_of(decode(bytes(one.current), Any)),
            "counts": await self._held.counts(sorted({one.connection_id for one in found})),
            "more": None if last is None else f"{HELD}?after={cursor(last.connection_id, last.listing_id)}",
        }
        return visit.page("held.html", context)

    async def decide(self, visit: Visit) -> web.StreamResponse:
        """POST: about as many as the person has seen; when it is another number by now, nothing is done."""
        decision = _decision(needed(visit.form, "decision"))
        connection = await self._connection(visit)
        if connection is None:
            return visit.missing("connection")
        number = connection.connection_id
        if decision == "approve" and connection.state == "revoked":
            return visit.done(f"Connection {number} was revoked: nothing is deleted any more.", mood="bad", back=HELD)
        expected = positive_number(visit.form.get("held"), "held")
        held, done = await self._held.decide(number, decision, expected)
        if not done:
            text = f"{things(held, 'listing')} of connection {number} held by now, not {expected}: look again."
            return visit.done(text if held else "Somebody else has decided meanwhile.", mood="bad", back=HELD)
        log.info("console.decided", operator=visit.operator, connection_id=number, decision=decision, held=held)
        words = {
            "approve": "each is asked at its own URL, and deleted when that says so, too",
            "discard": "nothing is deleted",
        }
        return visit.done(f"{things(held, 'listing')} of connection {number}: {words[decision]}.", back=HELD)

    async def resync(self, visit: Visit) -> web.StreamResponse:
        """POST: everything known of the connection, or of one of its locations, is read again."""
        connection = await self._connection(visit)
        if connection is None:
            return visit.missing("connection")
        number, location_id = connection.connection_id, visit.form.get("locationId", "").strip() or None
        if location_id is not None:
            read_name(location_id, "locationId")
        if connection.state == "revoked":
            return visit.done(f"Connection {number} was revoked: it is not synced any more.", mood="bad")
        targets = await self._connections.resync(number, location_id)
        log.info(
            "console.resynced", operator=visit.operator, connection_id=number, location_id=location_id, targets=targets
        )
        where = f"location {location_id} of connection {number}" if location_id else f"connection {number}"
        if not targets:
            return visit.done(f"Nothing is known of {where} yet: there is nothing to read again.", mood="bad")
        return visit.done(f"{targets} targets of {where} are read again.")

    async def _connection(self, visit: Visit) -> Connection | None:
        return await self._connections.connection(positive_number(visit.form.get("connectionId"), "connectionId"))


def _decision(text: str) -> Decision:
    for decision in get_args(Decision):
        if text == decision:
            return decision  # type: ignore[no-any-return]  # get_args knows no types
    raise BadInput("decision must be approve or discard")
