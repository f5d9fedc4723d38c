"""The host's clocks, for what never leaves one process's judgement. Whatever is stored is timed by the store."""

from __future__ import annotations

import time


def wall_seconds() -> int:
    """Unix time in whole seconds.

    Only for what the ingress issues and checks by itself (access tokens): it is never compared with a time that another
    host has read.
    """
    return int(time.time())  # noqa: TID251  # the one place


def monotonic_seconds() -> float:
    """Seconds from an arbitrary beginning; only differences within one process mean anything."""
    return time.monotonic()
