"""What a snapshot reads, on both databases: every listing once, in bounded pages, whatever changes meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from common.codec import dumps, loads
from common.store.engine import Store
from schemas.messages import SnapshotRequested
from schemas.tables import ListingRow, table_of
from workers.relay.snapshot_rules import after
from workers.relay.store.snapshots import SnapshotStore

_listing = table_of(ListingRow)


def row(connection_id: int, name: str, **more: Any) -> dict[str, Any]:
    return {
        "connection_id": connection_id, "listing_id": name, "scope": "/v1/x", "item_id": name, "own_path": "/v1/x",
        "attribute_type": "resources", "location_id": "1198", "body": dumps({"ID": name}).decode(), "version": 1,
        "deleted": False, **more,
    }  # fmt: skip


async def add(store: Store, *rows: dict[str, Any]) -> None:
    async with store.transaction() as transaction:
        await transaction.execute(_listing.insert(), list(rows))


async def pages(
    reading: SnapshotStore, request: SnapshotRequested, between: Callable[[int], Any] = lambda number: None
) -> list[list[str]]:
    """Names, page by page."""
    found: list[list[str]] = []
    while (page := await reading.page(request)).listings:
        found.append([one.item_id for one in page.listings])
        request = after(request, page.listings[-1], len(page.listings))
        if (doing := between(len(found))) is not None:
            await doing
    return found


EVERYTHING = SnapshotRequested(to="q")


async def test_pages_go_through_all_connections_and_leave_placeholders_out(store: Store) -> None:
    names = ("b", "a", "c")
    await add(
        store,
        *(row(connection, f"{connection}{name}") for connection in (100, 99) for name in names),
        row(99, "99b2", version=0, body=None),
        row(99, "99d", body=None, deleted=True),
    )
    reading = SnapshotStore(store, rows=3)
    assert await pages(reading, EVERYTHING) == [["99a", "99b", "99c"], ["99d", "100a", "100b"], ["100c"]]
    assert await reading.count(EVERYTHING) == 7
    gone = (await reading.page(EVERYTHING)).listings
    assert [one.deleted for one in gone] == [False] * 3


@pytest.mark.parametrize(
    ("members", "names"),
    [
        ({"connection_id": 99}, ["a", "b"]),
        ({"location_id": "1199"}, ["b", "d"]),
        ({"attribute_type": "rates"}, ["c", "d"]),
        ({"connection_id": 100, "location_id": "1199", "attribute_type": "rates"}, ["d"]),
        ({"location_id": "of nobody"}, []),
    ],
)
async def test_a_part_is_chosen_by_what_is_known_now(store: Store, members: dict[str, Any], names: list[str]) -> None:
    await add(
        store,
        row(99, "a"),
        row(99, "b", location_id="1199"),
        row(100, "c", attribute_type="rates", location_id=None),
        row(100, "d", attribute_type="rates", location_id="1199"),
    )
    request = SnapshotRequested(to="q", **members)
    reading = SnapshotStore(store, rows=1)
    assert await pages(reading, request) == [[name] for name in names]
    assert await reading.count(request) == len(names)


async def test_a_page_is_bounded_in_bytes_and_a_body_over_that_comes_alone(store: Store) -> None:
    """T-JOIN-READ."""
    large, small = dumps({"ID": "x" * 600}).decode(), dumps({"ID": "x" * 200}).decode()
    await add(store, *(row(1, str(number), body=large if number == 3 else small) for number in range(7)))
    assert await pages(SnapshotStore(store, size=500), EVERYTHING) == [["0", "1"], ["2"], ["3"], ["4", "5"], ["6"]]


async def test_bodies_go_out_as_they_are(store: Store) -> None:
    item = {"big": 2**70, "text": "é🏢\x01", "float": 1.0}
    await add(store, row(1, "a", body=dumps(item).decode()), row(1, "b", body=None, deleted=True))
    live, deleted = (await SnapshotStore(store).page(EVERYTHING)).listings
    assert loads(dumps(live))["current"] == item
    assert loads(dumps(deleted))["current"] is None
    assert deleted.deleted


async def test_what_comes_or_goes_between_two_pages_moves_no_other(store: Store, other: Store) -> None:
    """T-JOIN-READ: keys, not offsets: a new listing before the place is left to its event, one behind it is told."""
    await add(store, *(row(1, name) for name in ("b", "d", "f", "h")))

    async def change() -> None:
        async with other.transaction() as transaction:
            await transaction.execute(_listing.delete().where(_listing.c.listing_id == "f"))
        await add(other, row(1, "a"), row(1, "g"))

    def after_the_first(number: int) -> Any:
        return change() if number == 1 else None

    assert await pages(SnapshotStore(store, rows=2), EVERYTHING, after_the_first) == [["b", "d"], ["g", "h"]]
