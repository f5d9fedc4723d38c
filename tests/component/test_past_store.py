"""What a replay reads, on both databases: which events, how many, and in which order."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from common.codec import dumps
from common.store.engine import Store
from schemas.tables import EventRow, table_of
from workers.relay.store.past import Count, Found, PastStore, Wanted

T0 = datetime(2026, 11, 24, 10, 0, 0, 5, tzinfo=UTC)
SINCE_EVER = Wanted(datetime(1970, 1, 1, tzinfo=UTC))

_event = table_of(EventRow)


def event(position: int, **more: Any) -> dict[str, Any]:
    headers = {"connectionId": "99", "locationId": "1198", "attributeType": "rates", "change": "updated"}
    named = {name: value for name, value in (headers | more.pop("headers", {})).items() if value is not None}
    return {
        "connection_id": 99, "event_id": f"id-{position}", "position": position, "type": "listing.changed",
        "subject": f"99/rates/{position}", "listing_id": f"l{position}", "version": 1, "data": "{}",
        "headers": dumps(named).decode(), "created_at": T0 + timedelta(minutes=position), "published_at": T0, **more,
    }  # fmt: skip


def grant(position: int) -> dict[str, Any]:
    headers = {"connectionId": None, "locationId": None, "attributeType": None, "change": None}
    more: dict[str, Any] = {"connection_id": 0, "type": "grant.changed", "listing_id": None, "version": None}
    return event(position, headers=headers, **more)


async def add(store: Store, *rows: dict[str, Any]) -> None:
    async with store.transaction() as transaction:
        await transaction.execute(_event.insert(), list(rows))


async def positions(past: PastStore, wanted: Wanted, last: int = 10**6) -> list[list[int]]:
    found: list[list[int]] = []
    after = -1
    while page := await past.page(wanted, after, last):
        found.append([one.position for one in page])
        after = page[-1].position
    return found


FILTERS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "none": ({}, [1, 2, 3, 4, 5]),
    "since": ({"since": T0 + timedelta(minutes=4)}, [4, 5]),
    "until": ({"until": T0 + timedelta(minutes=3)}, [1, 2]),
    "connection": ({"connections": [100]}, [2]),
    "location": ({"locations": ["1199"]}, [3]),
    "kind": ({"kinds": ["resources"]}, [2, 3]),
    "change": ({"changes": ["deleted"]}, [4]),
    "type": ({"types": ["grant.changed"]}, [5]),
    "listing": ({"listings": ["l4"]}, [4]),
    "listing by its names": ({"listings": ["99/rates/3", "l1"]}, [1, 3]),
    "several values": ({"connections": [100, 98], "changes": ["deleted", "updated"]}, [2]),
    "several": ({"kinds": ["resources"], "connections": [99], "changes": ["updated"]}, [3]),
    "nothing": ({"locations": ["it's \"\\ nobody's"]}, []),
}


@pytest.mark.parametrize("name", FILTERS)
async def test_filters(store: Store, name: str) -> None:
    await add(
        store,
        event(1),
        event(2, connection_id=100, headers={"attributeType": "resources"}),
        event(3, headers={"attributeType": "resources", "locationId": "1199"}),
        event(4, headers={"change": "deleted", "locationId": None}),
        grant(5),
    )
    members, expected = FILTERS[name]
    wanted = replace(SINCE_EVER, **members)
    past = PastStore(store)
    assert [one for page in await positions(past, wanted) for one in page] == expected
    found = await past.find(wanted, 5)
    assert (found.events, len(found.lines)) == (len(expected), len(expected))
    assert (found.first_position, found.last_position) == ((expected[0], expected[-1]) if expected else (0, 0))


async def test_a_location_of_any_letters_is_found(store: Store) -> None:
    name = "it's \"\\ 'é🏢 %_"
    await add(store, event(1, headers={"locationId": name}), event(2))
    assert await positions(PastStore(store), replace(SINCE_EVER, locations=[name])) == [[1]]


async def test_the_order_is_that_of_positions_whatever_the_clock_said(store: Store) -> None:
    """T-REPLAY-TABLE: a clock that was set back must not turn a listing's versions round."""
    rows = [event(number, created_at=T0 - timedelta(hours=number), listing_id="l", version=number) for number in (3, 1)]
    await add(store, *rows, event(2))
    assert await positions(PastStore(store, rows=2), SINCE_EVER) == [[1, 2], [3]]


async def test_what_is_told_behind_the_end_is_left_to_the_stream_of_events(store: Store, other: Store) -> None:
    await add(store, event(1), event(2))
    past = PastStore(store)
    found = await past.find(SINCE_EVER, 5)
    await add(other, event(3))
    assert await positions(past, SINCE_EVER, found.last_position) == [[1, 2]]


async def test_a_page_is_bounded_in_bytes(store: Store) -> None:
    await add(store, *(event(number, data=dumps("x" * (600 if number == 3 else 200)).decode()) for number in range(6)))
    assert await positions(PastStore(store, size=500), SINCE_EVER) == [[0, 1], [2], [3], [4, 5]]


async def test_the_preview_counts_and_shows(store: Store) -> None:
    await add(
        store,
        *(event(number) for number in range(1, 5)),
        event(5, headers={"change": "created"}, published_at=None),
        event(6, published_at=None),
        grant(7),
        event(0, created_at=T0 - timedelta(days=1)),
    )
    found = await PastStore(store).find(Wanted(T0), 2)
    assert found.counts == [
        Count("grant.changed", None, None, 1, 0),
        Count("listing.changed", "rates", "created", 1, 1),
        Count("listing.changed", "rates", "updated", 5, 1),
    ]
    assert (found.events, found.unpublished) == (7, 2)
    assert (found.first_at, found.last_at) == (T0 + timedelta(minutes=1), T0 + timedelta(minutes=7))
    assert found.oldest_at == T0 - timedelta(days=1)
    assert [one.subject for one in found.lines] == ["99/rates/1", "99/rates/2", "99/rates/7"]
    assert (found.lines[0].change, found.lines[0].version, found.lines[0].type) == ("updated", 1, "listing.changed")


async def test_of_an_empty_store_there_is_nothing(store: Store) -> None:
    assert await PastStore(store).find(SINCE_EVER, 5) == Found([], None, None, 0, 0, [], None)
    assert await PastStore(store).earliest(SINCE_EVER, 0, 10) is None


@pytest.mark.parametrize(
    ("since", "versions", "pruned"),
    [(T0, [2, 3], True), (T0, [1, 2], False), (T0 + timedelta(hours=1), [2, 3], False)],
    ids=["something is gone", "a young store", "it begins later"],
)
async def test_only_what_was_forgotten_is_gone(
    store: Store, since: datetime, versions: list[int], pruned: bool
) -> None:
    await add(store, *(event(number, listing_id="l", version=number) for number in versions), event(9), grant(10))
    assert (await PastStore(store).find(Wanted(since), 5)).pruned is pruned


async def test_where_to_go_on_is_before_everything_that_is_left(store: Store) -> None:
    await add(store, event(1), event(2, created_at=T0 + timedelta(hours=2)), event(3), event(4))
    past = PastStore(store)
    assert await past.earliest(SINCE_EVER, 1, 4) == T0 + timedelta(minutes=3)
    assert await past.earliest(SINCE_EVER, 3, 3) is None
