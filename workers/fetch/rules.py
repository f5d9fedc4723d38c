"""When a connection is read again, and where the items of a collection have their own URLs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from common.identity import as_segment


def next_resync(interval: timedelta, spread: float, *, first: bool) -> timedelta:
    """How long until a connection is read again: the interval and up to a tenth of it; at first anything up to it.

    `spread` (0 to 1, random) keeps connections that began together from staying together.
    """
    return interval * (spread if first else 1 + spread / 10)


def item_urls(url: str, ids: Sequence[str]) -> list[str]:
    """The own URLs of items found in the collection at `url`."""
    base = url.split("?", 1)[0].split("#", 1)[0].rstrip("/")
    return [f"{base}/{as_segment(one)}" for one in ids]
