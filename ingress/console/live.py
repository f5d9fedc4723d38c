"""`/console/events`: what happens, as it happens, as server-sent events.

`event`: an event of the log, as a row of the page; its id is the position that is settled by then. Whoever comes back
with it (`Last-Event-ID`) hears everything after that again, so that nothing is missed, and knows rows by their ids.
`standing`: how everything stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp_jinja2
from aiohttp import hdrs, web
from aiohttp_session import Session, get_session

from common.clock import wall_seconds
from common.codec import dumps
from common.errors import StoreUnavailable
from ingress.connect.sign_in import OperatorSignIn
from ingress.console.feed import Feed, Happened, Listener, Standing
from ingress.console.rules import Choice, Told, told
from ingress.console.store import EventLogStore
from ingress.pages.render import security_headers
from ingress.pages.session import CSRF_FIELD, SESSION_SECONDS
from ingress.parameters import MAX_NUMBER, positive_number, singles
from ingress.problems import problem

AGAIN = 200
"""Events that somebody who comes back is told again, at most: the latest."""
BEAT_SECONDS = 10.0
WRITE_SECONDS = 10.0
"""Somebody who takes nothing for so long has gone."""
STREAM_SECONDS = 300.0
"""Then one connects again, and who has been signed out meanwhile is told so."""

_HEADERS = {
    hdrs.CONTENT_TYPE: "text/event-stream",
    "X-Accel-Buffering": "no",  # nginx would else keep it back
}


class Live:
    """The stream."""

    def __init__(self, feed: Feed, log: EventLogStore, sign_in: OperatorSignIn, shared: Mapping[str, Any]) -> None:
        """`shared`: what the templates of the page know, too."""
        self._feed = feed
        self._log = log
        self._sign_in = sign_in
        self._shared = shared

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """GET: until one of both sides, or the session, ends.

        Raises:
            BadInput: a filter is none.
        """
        session = await get_session(request)
        if self._sign_in.operator(session) is None:
            return problem(401, "/problems/signed-out", "Signed out", "Sign in at /console first.")
        choice = choice_of(singles(request.query.items()))
        listener = self._feed.listen(choice, owner_of(session))
        if listener is None:
            detail = "As many consoles are open as one process serves, or it is about to end. Try again in a while."
            later: dict[str, str] = {hdrs.RETRY_AFTER: "10"}
            return problem(503, "/problems/too-many-consoles", "Too many consoles", detail, headers=later)
        response = web.StreamResponse(headers=security_headers() | _HEADERS)
        try:
            await response.prepare(request)
            async with asyncio.timeout(_seconds_left(session)):
                await self._tell(request, response, listener, session)
        except (TimeoutError, ConnectionError):
            pass  # they come back if they want to
        finally:
            self._feed.leave(listener)
        return response

    async def _tell(
        self, request: web.Request, response: web.StreamResponse, listener: Listener, session: Session
    ) -> None:
        pages = aiohttp_jinja2.get_env(request.app)
        await _write(response, b"retry: 1000\n\n")
        known: set[str] = set()
        for event in await self._missed(request, listener.choice):
            known.add(event.event_id)
            row = pages.get_template("console/event.html").render(event=event)
            await _write(response, _message("event", {"id": event.event_id, "html": row}))
        async for item in _items(listener):
            match item:
                case None:
                    await _write(response, b": here\n\n")
                case Happened(event, settled) if event.event_id not in known:
                    row = pages.get_template("console/event.html").render(event=event)
                    await _write(response, _message("event", {"id": event.event_id, "html": row}, settled))
                case Standing():
                    context = {**self._shared, "standing": item, "csrf": session.get(CSRF_FIELD, "")}
                    now = pages.get_template("console/standing.html").render(context)
                    await _write(response, _message("standing", {"html": now, "store": item.flow is not None}))

    async def _missed(self, request: web.Request, choice: Choice) -> list[Told]:
        """Since somebody was here last; the oldest first. Nobody waits for a store that is away."""
        after = _number(request.headers.get("Last-Event-ID") or request.query.get("after"))
        if after is None:
            return []
        try:
            found = await self._log.latest(choice, AGAIN, after)
        except StoreUnavailable:
            return []
        return [told(event) for event in reversed(found)]


def choice_of(values: Mapping[str, str]) -> Choice:
    """The parameters `connection` and `collection`; empty ones count as none.

    Raises:
        BadInput: `connection` is not a number.
    """
    given = {name: value for name, value in values.items() if value.strip()}
    return Choice(connection_of(given), given.get("collection"))


def connection_of(values: Mapping[str, str]) -> int | None:
    """The parameter `connection`.

    Raises:
        BadInput: it is not a number.
    """
    text = values.get("connection")
    return None if text is None else positive_number(text.strip(), "connection")


def owner_of(session: Session) -> str:
    """What a session is known by in this process."""
    return str(session.get(CSRF_FIELD, ""))


async def _items(listener: Listener) -> AsyncIterator[Happened | Standing | None]:
    """What they are given; None: nothing for a while. Ends when they are sent off."""
    while True:
        try:
            async with asyncio.timeout(BEAT_SECONDS):
                item = await listener.queue.get()
        except TimeoutError:
            yield None
            continue
        if item is None:
            return
        yield item


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_SECONDS):
        await response.write(data)


def _message(kind: str, data: Mapping[str, Any], number: int | None = None) -> bytes:
    head = b"" if number is None else b"id: %d\n" % number
    return head + b"event: " + kind.encode() + b"\ndata: " + dumps(data) + b"\n\n"


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and int(text[:20]) <= MAX_NUMBER else None


def _seconds_left(session: Session) -> float:
    age = wall_seconds() - (session.created or 0)
    return max(0.0, min(STREAM_SECONDS, SESSION_SECONDS - age))
