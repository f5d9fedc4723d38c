"""Where the items of a collection have their own URLs. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from common.identity import as_segment


def item_urls(url: str, ids: Sequence[str]) -> list[str]:
    """The own URLs of items found in the collection at `url`."""
    base = url.split("?", 1)[0].split("#", 1)[0].rstrip("/")
    return [f"{base}/{as_segment(one)}" for one in ids]
