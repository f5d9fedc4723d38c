"""The host's clocks, for what never leaves one process's judgement. Whatever is stored is timed by the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Monotonic = Callable[[], float]
"""A clock to measure with: `monotonic_seconds`, or a test's own."""


def wall_seconds() -> int:
    """Unix time in whole seconds.

    Only for what the ingress issues and checks by itself (access tokens): it is never compared with a time that another
    host has read.
    """
    return int(time.time())  # noqa: TID251  # the one place


def utc_now() -> datetime:
    """The moment, aware UTC: told to subscribers (`fetchedAt`), held against the date of a `Retry-After`, and the clock
    of a store that is a file.

    Nothing else is decided by it: hosts' clocks differ. How long a message waited, which is shown only, is reckoned
    from two of them.
    """
    return datetime.now(UTC)


def length(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min`, `5 h`, `12 days`: two figures are enough for a person."""
    for unit, name in ((86400 * 2, "days"), (3600 * 2, "h"), (60 * 2, "min")):
        if seconds >= unit:
            return f"{int(seconds // (unit // 2))} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def monotonic_seconds() -> float:
    """Seconds from an arbitrary beginning; only differences within one process mean anything."""
    return time.monotonic()
