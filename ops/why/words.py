"""Times, numbers and states in the words of the screen. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from common import clock
from common.identity import place_of
from common.story import moment_of
from ops.why.ask import Answers

Json = Mapping[str, Any]

LABEL = 11
"""How wide the names of lines are."""


def is_own(answers: Answers, thing: Json) -> bool:
    """Whether the target or attempt is for the listing's own URL, not for its collection."""
    return place_of(thing["url"]).path == answers.path


def status_of(status: int | None) -> str:
    """As a person reads it."""
    return str(status) if status else "no answer"


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
    """As `common.clock.length`."""
    return clock.length(gap.total_seconds())
