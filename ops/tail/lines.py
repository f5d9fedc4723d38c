"""An event as lines of a screen: what changed to what, the old in red, the new in green. Pure.

A line is pieces of text with their styles, not a Text of rich: that would take fifteen times as long, and a busy log is
faster than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date
from typing import Any

from common.codec import dumps
from common.foreign import harmless, name_of
from ops.tail.event import Event, changed
from ops.terminal import Piece
from ops.why.values import differences, shortened

Line = list[Piece]

INDENT = " " * 11
NAMED = 40
"""Characters of a listing's name."""
MOST = 20
"""Differences of one event; --json has them all."""

_STYLES = {"created": "green", "updated": "yellow", "deleted": "magenta"}
_GRANT = {"needs_authorisation": ("nothing is fetched until /connect is opened", "red"), "active": ("", "green")}


class Lines:
    """The lines of one event after another; remembers the day, which has a line of its own."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._day: date | None = None

    def of(self, event: Event) -> Iterator[Line]:
        """Its lines; times are UTC."""
        at = event.time.astimezone(UTC)
        if at.date() != self._day:
            self._day = at.date()
            yield [(f"{at:%Y-%m-%d} UTC", "bold")]
        first, *rest = _KINDS.get(event.type, _unknown)(event, self._width)
        yield [*_line((f"{at:%H:%M:%S}Z  ", "dim"), (f"{event.subject}  ", "bold")), *first]
        yield from rest


def _line(*pieces: str | Piece) -> Line:
    """The one place where lines are made: nothing foreign passes it as it is."""
    styled = [(piece, "") if isinstance(piece, str) else piece for piece in pieces]
    return [(harmless(text), style) for text, style in styled if text]


def _listing(event: Event, width: int) -> Iterator[Line]:
    data = event.data
    change = str(data.get("change"))
    name = shortened(harmless(name_of(changed(data))), "", NAMED)[0]
    yield _line(
        (change, _STYLES.get(change, "")),
        f"  v{data.get('version')}",
        f"  “{name}”" if name else "",
        (f"  {_aside(data)}", "dim"),
    )
    if change == "updated":
        yield from _differences(data, width)


def _aside(data: Mapping[str, Any]) -> str:
    words = [data.get("reason"), *(data.get(name) and f"{label} {data[name]}" for name, label in _ASIDE.items())]
    return ", ".join(str(word) for word in words if word)


_ASIDE = {"locationId": "location", "resourceId": "resource"}


def _differences(data: Mapping[str, Any], width: int) -> Iterator[Line]:
    for name, old, new in differences(data, width - len(INDENT), MOST):
        yield _line(INDENT, (f"{name}  ", "cyan"), (old, "red"), " → ", (new, "green"))
    more = len(data.get("patch") or ()) - MOST
    if more > 0:
        yield [(f"{INDENT}… and {more} more; --json shows all", "dim")]


def _connection(event: Event, width: int) -> Iterator[Line]:
    state = str(event.data.get("state"))
    style = {"confirmed": "green", "revoked": "red"}.get(state, "")
    yield _line("connection ", (state, style), f", user {event.data.get('userId')}")


def _grant(event: Event, width: int) -> Iterator[Line]:
    state = str(event.data.get("state"))
    meaning, style = _GRANT.get(state, ("", ""))
    words = state.replace("_", " ")
    yield _line("access to Syncaroo ", (f"{words}: {meaning}" if meaning else words, style))


def _held(event: Event, width: int) -> Iterator[Line]:
    data = event.data
    told = f"{data.get('held')} of {data.get('live')} listings vanished and are held"
    yield _line((told, "red"), f"; a person decides: gateway held list {data.get('connectionId')}")


def _unknown(event: Event, width: int) -> Iterator[Line]:
    """A type that this program does not know, as a newer gateway's: what it says, on one line."""
    said = shortened(harmless(dumps(event.data).decode()), "", width - len(INDENT) - len(event.subject))[0]
    yield _line((f"{event.type}  ", "cyan"), said)


_KINDS: Mapping[str, Callable[[Event, int], Iterator[Line]]] = {
    "listing.changed": _listing,
    "connection.changed": _connection,
    "grant.changed": _grant,
    "sync.held": _held,
}
