"""Times, numbers and states in the words of the screen. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from common.identity import place_of
from ops.why.ask import Answers
from ops.why.story import moment_of

Json = Mapping[str, Any]

LABEL = 11
"""How wide the names of lines are."""


def is_own(answers: Answers, thing: Json) -> bool:
    """Whether the target or attempt is for the listing's own URL, not for its collection."""
    return place_of(thing["url"]).path == answers.path


def status_of(status: int | None) -> str:
    """As a person reads it."""
    return str(status) if status else "no answer"


def times(number: int, what: str) -> str:
    """`1 page`, `2 pages`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def ago(moment: datetime, now: datetime) -> str:
    """A time that has passed."""
    return f"{time_of(moment, now)} ({length(max(now - moment, timedelta(0)))} ago)"


def coming(text: str, now: datetime) -> str:
    """A time of the API that is to come."""
    moment = moment_of(text)
    return f"{time_of(moment, now)} (in {length(max(moment - now, timedelta(0)))})"


def time_of(moment: datetime, now: datetime) -> str:
    """With the date when it is another day's."""
    return f"{moment:%H:%M:%S}" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def length(gap: timedelta) -> str:
    """`0.4 s`, `12 s`, `3 min`, `5 h`, `12 days`: two figures are enough for a person."""
    seconds = gap.total_seconds()
    for unit, name in ((86400 * 2, "days"), (3600 * 2, "h"), (60 * 2, "min")):
        if seconds >= unit:
            return f"{int(seconds // (unit // 2))} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
