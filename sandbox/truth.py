"""What is true right now, for a checker: every item under its own URL, and what each connection must have heard of."""

from typing import Any

from msgspec import Struct

from sandbox.state import Sandbox


class Truth(Struct, kw_only=True, rename="camel"):
    """All keys and values of URLs are whole, as our webhooks and links spell them."""

    order: int
    items: dict[str, dict[str, Any]]
    """An item's own URL to its JSON."""
    collections: dict[str, list[str]]
    """A collection's URL to its items' URLs, in order."""
    gone: list[str]
    """Own URLs of items that were removed."""
    expected: dict[str, list[str]]
    """connectionId to the items, alive now, of which an answered webhook (2xx) told: their own or their list's."""


def truth(sandbox: Sandbox) -> Truth:
    items = {sandbox.url(path): node.data for path, node in sandbox.world.items()}
    collections: dict[str, list[str]] = {}
    for url in items:
        collections.setdefault(url.rpartition("/")[0], []).append(url)
    return Truth(
        order=sandbox.records.last,
        items=items,
        collections=collections,
        gone=sorted({change.url for change in sandbox.records.changes if change.deleted} - set(items)),
        expected={str(number): _expected(sandbox, number, items) for number in sandbox.connections},
    )


def _expected(sandbox: Sandbox, connection_id: int, items: dict[str, dict[str, Any]]) -> list[str]:
    told = {
        record.url
        for record in sandbox.records.webhooks
        if record.connection_id == connection_id and record.status is not None and 200 <= record.status < 300
    }
    return [url for url in items if url in told or url.rpartition("/")[0] in told]
