"""workers.relay.rules: one at a time per listing, and the message on the wire (CONTRACT §4)."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.codec import dumps, loads
from common.store.events import headers_of, subject_of
from schemas.events import (
    ConnectionChanged,
    EventData,
    GrantChanged,
    ListingChanged,
    PatchOperation,
    SyncHeld,
)
from workers.relay.rules import PendingEvent, Waiting, Window, on_the_wire, order_key

AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def pending(event: EventData, event_id: str = "0197") -> PendingEvent:
    return PendingEvent(
        connection_id=getattr(event, "connection_id", 0),
        event_id=event_id,
        type=type(event).TYPE,
        schema_version=type(event).SCHEMA_VERSION,
        subject=subject_of(event),
        listing_id=getattr(event, "listing_id", None),
        data=dumps(event).decode(),
        headers=dumps(headers_of(event)).decode(),
        created_at=AT,
    )


def listing_changed(**other: Any) -> ListingChanged:
    values: dict[str, Any] = {
        "listing_id": "l", "connection_id": 99, "attribute_type": "resources", "item_id": "7843",
        "location_id": "1198", "resource_id": "7843", "resource_type": "meeting-room", "change": "updated",
        "reason": "webhook", "version": 2, "changed_fields": ["capacity"],
        "patch": [PatchOperation(op="replace", path="/capacity", value=12)],
        "previous": {"ID": "7843", "capacity": 10}, "current": {"ID": "7843", "capacity": 12},
        "delivery_id": "d", "fetched_at": AT,
    }  # fmt: skip
    return ListingChanged(**{**values, **other})


def test_the_message_is_the_contracts_example() -> None:
    """CONTRACT §4, member by member."""
    message = on_the_wire(replace(pending(listing_changed()), schema_version=1), "https://yourapp.com")
    assert loads(message.body) == {
        "specversion": "1.0", "id": "0197", "source": "https://yourapp.com", "type": "listing.changed",
        "subject": "99/resources/7843", "time": "2026-01-02T03:04:05.678000Z", "datacontenttype": "application/json",
        "dataschema": "https://yourapp.com/schemas/listing.changed/1",
        "data": {
            "listingId": "l", "connectionId": 99, "attributeType": "resources", "itemId": "7843", "locationId": "1198",
            "resourceId": "7843", "resourceType": "meeting-room", "change": "updated", "reason": "webhook",
            "version": 2, "changedFields": ["capacity"],
            "patch": [{"op": "replace", "path": "/capacity", "value": 12}],
            "previous": {"ID": "7843", "capacity": 10}, "current": {"ID": "7843", "capacity": 12},
            "deliveryId": "d", "fetchedAt": "2026-01-02T03:04:05.678000Z",
        },
    }  # fmt: skip
    assert (message.exchange, message.routing_key) == ("syncaroo.events", "listing.changed")
    assert message.headers == {
        "connectionId": "99", "locationId": "1198", "resourceId": "7843", "attributeType": "resources",
        "change": "updated",
    }  # fmt: skip
    assert (message.content_type, message.message_id) == ("application/cloudevents+json", "0197")
    assert (message.type, message.correlation_id, message.timestamp) == ("listing.changed", None, None)


def test_an_event_names_the_schema_that_its_data_was_written_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits, and what is replayed, was written by the version of its day."""
    old = pending(GrantChanged(state="active"))
    monkeypatch.setattr(GrantChanged, "SCHEMA_VERSION", old.schema_version + 1)
    new = pending(GrantChanged(state="active"))
    named = [loads(on_the_wire(one, "https://yourapp.com").body)["dataschema"] for one in (old, new)]
    assert named == [f"https://yourapp.com/schemas/grant.changed/{old.schema_version + more}" for more in (0, 1)]


@pytest.mark.parametrize(
    ("event", "subject", "data", "headers"),
    [
        (
            ConnectionChanged(connection_id=99, user_id="1", state="revoked"),
            "99",
            {"connectionId": 99, "userId": "1", "state": "revoked"},
            {"connectionId": "99"},
        ),
        (GrantChanged(state="active"), "grant", {"state": "active"}, {}),
        (
            SyncHeld(connection_id=99, held=4, live=9),
            "99",
            {"connectionId": 99, "held": 4, "live": 9},
            {"connectionId": "99"},
        ),
    ],
)
def test_the_other_events(event: EventData, subject: str, data: dict[str, Any], headers: dict[str, str]) -> None:
    message = on_the_wire(pending(event), "https://yourapp.com")
    body = loads(message.body)
    assert (body["type"], body["subject"], body["data"]) == (message.routing_key, subject, data)
    assert message.headers == headers


def test_null_is_said_and_a_header_without_a_value_is_left_out() -> None:
    event = listing_changed(
        change="deleted", current=None, location_id=None, resource_id=None, patch=[], changed_fields=[]
    )
    message = on_the_wire(pending(event), "s")
    data = loads(message.body)["data"]
    assert data["current"] is None
    assert data["locationId"] is None
    assert set(message.headers) == {"connectionId", "attributeType", "change"}


def test_the_body_of_an_item_goes_out_as_it_came() -> None:
    item = {"n": 2**70, "f": 1.0, "html": "<b>é🏢</b>\0", "deep": [[{}]]}
    message = on_the_wire(pending(listing_changed(current=item)), "s")
    assert loads(message.body)["data"]["current"] == item
    assert b'"f":1.0' in message.body


EVENTS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=12).map(
    lambda ids: [pending(listing_changed(listing_id=one), str(number)) for number, one in enumerate(ids)]
)


# Each example is a whole life of a window: fewer of them will do.
@settings(max_examples=40)
@given(EVENTS, st.data())
def test_whatever_happens_one_of_a_listing_is_under_way_and_all_leave_in_order(
    waiting: list[PendingEvent], data: st.DataObject
) -> None:
    """Events are read in overlapping parts, some are put back, marks come late: none is doubled, lost or overtaken."""
    window, under_way, gone = Window(), list[PendingEvent](), list[PendingEvent]()
    stored = list(waiting)
    while stored or under_way or window.left:
        match data.draw(st.sampled_from(["read", "take", "leave", "fail", "mark"])):
            case "read":
                window.add(stored[: data.draw(st.integers(1, 5))])
            case "take" if window.ready:
                under_way.append(window.take())
            case "leave" if under_way:
                gone.append(under_way.pop(data.draw(st.integers(0, len(under_way) - 1))))
                window.has_left(gone[-1])
            case "fail" if under_way:
                window.put_back(under_way.pop(data.draw(st.integers(0, len(under_way) - 1))))
            case "mark" if window.left:
                marked = window.left[: data.draw(st.integers(1, 3))]
                window.marked(marked)
                stored = [event for event in stored if event not in marked]
        keys = [order_key(event) for event in under_way]
        assert len(set(keys)) == len(keys)
        assert window.known == {event.event_id for event in stored if event.event_id in window.known}
    for key in {order_key(event) for event in waiting}:
        assert [one for one in gone if order_key(one) == key] == [one for one in waiting if order_key(one) == key]
    assert len(window) == 0
    assert not window.known


def test_events_without_a_listing_keep_their_own_order() -> None:
    first, second = (pending(GrantChanged(state=state), state) for state in ("needs_authorisation", "active"))
    other = pending(ConnectionChanged(connection_id=1, user_id="1", state="confirmed"), "connection")
    window = Window()
    window.add([first, other, second])
    assert [window.take(), window.take()] == [first, other]
    assert not window.ready
    window.has_left(first)
    assert window.take() == second


def test_what_was_put_back_waits_until_others_had_their_turn() -> None:
    one, two = (pending(listing_changed(listing_id=name), name) for name in "ab")
    window = Window()
    window.add([one, two])
    window.put_back(window.take())
    assert [window.take(), window.take()] == [two, one]


def test_what_has_left_is_not_taken_in_again_before_it_is_marked() -> None:
    event = pending(listing_changed())
    window = Window()
    window.add([event])
    window.has_left(window.take())
    window.add([event])
    assert (len(window), window.ready, window.left) == (0, 0, [event])
    window.marked([event])
    assert (window.left, window.known) == ([], set())


def waiting(*lanes: str, size: int = 10) -> list[Waiting]:
    return [Waiting(number, f"{lane}{number}", lane, size) for number, lane in enumerate(lanes)]


def held(lane: str, number: int) -> PendingEvent:
    return pending(listing_changed(listing_id=lane), f"{lane}{number}")


def test_a_long_lane_leaves_room_for_the_others() -> None:
    window = Window(events=10, lane=3)
    assert window.choose(waiting("a", "a", "a", "a", "a", "b", "a", "c")) == [0, 1, 2, 5, 7]
    window.add([held("a", 0), held("a", 1), held("a", 2), held("b", 5)])
    assert window.passed_by == {"a"}
    drained = []
    for _ in range(4):
        drained.append(window.has_drained)
        window.has_left(window.take())
    assert drained == [False, False, False, True], "a0, b5, a1: one of three is left, there may be more in the store"
    assert window.choose(waiting("a", "a", "a", "a", "a")) == [3, 4], "what is known is not read again"


def test_the_window_is_bounded_in_events_and_bytes_and_takes_one_at_least() -> None:
    assert Window(events=2).choose(waiting("a", "b", "c")) == [0, 1]
    assert Window(size=25).choose(waiting("a", "b", "c")) == [0, 1]
    assert Window(size=5).choose(waiting("a", "b", "c")) == [0]
    for window in (Window(events=1), Window(size=1)):
        full = [window.is_full]
        window.add([held("a", 0)])
        full.append(window.is_full)
        window.has_left(window.take())
        full.append(window.is_full)
        window.marked(window.left)
        assert [*full, window.is_full] == [False, True, True, False], "what cannot be marked is held, too"


@pytest.mark.parametrize("limit", [{"events": 2}, {"size": 25}])
def test_what_was_left_for_want_of_room_is_remembered_though_there_is_room_by_now(limit: dict[str, int]) -> None:
    """Events that have left are marked while others are read: without this the rest waited for the next second."""
    window = Window(**limit)
    first = pending(listing_changed(listing_id="a"), "0")
    window.choose(waiting("a"))
    told = [window.left_some]
    window.add([first])
    window.has_left(window.take())
    assert window.choose(waiting("b", "c", "d"))
    window.marked([first])
    assert not window.is_full
    told.append(window.left_some)
    window.choose(waiting("d"))
    assert [*told, window.left_some] == [False, True, False]


def test_a_lane_that_cannot_go_on_takes_no_room() -> None:
    window = Window(events=3)
    window.add([held("a", 0), held("a", 1), held("b", 2)])
    assert window.is_full
    window.pass_by(window.take())
    assert (len(window), window.passed_by, window.known) == (1, {"a"}, {"b2"})
    window.add([held("a", 3)])
    assert window.choose(waiting("a", "c")) == [1]
    assert window.take() == held("b", 2)
