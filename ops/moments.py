"""Moments on the command line: `2h` (that long ago) or `2026-11-24T10:00`, UTC unless it says otherwise. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from common.settings import parse_duration

When = datetime | timedelta
"""A moment, or how long ago."""

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


def parse_when(text: str) -> When:
    """What was meant.

    Raises:
        ValueError: neither.
    """
    try:
        return parse_duration(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("write how long ago, such as 2h, or a moment, such as 2026-11-24T10:00 (UTC)") from None


def moment_of(when: When, now: datetime) -> datetime:
    """The moment, by the clock that `now` was read from; nothing is older than 1970."""
    if isinstance(when, datetime):
        return max(when, EARLIEST)
    return max(now - when, EARLIEST) if when < now - EARLIEST else EARLIEST
