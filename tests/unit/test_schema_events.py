"""What is on the wire fits the schema that it names, and what is not like it does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.rabbitmq import RabbitMQMessage, from_rabbitmq_event
from hypothesis import assume, given
from hypothesis import strategies as st

from common.broker.outgoing import Outgoing
from common.codec import dumps, loads
from common.identity import listing_id_of
from common.ids import new_id
from common.store.events import headers_of, subject_of
from ingress.documents import examples
from schemas.catalogue import EXAMPLE_SITE, catalogue, version_of
from schemas.events import EVENT_TYPES, Change, EventData, ListingChanged, ListingSnapshot, PatchOperation
from schemas.json_schema import document
from schemas.messages import REGISTRY, Reason
from tests.json_schemas import faults
from tests.strategies import JSON, values_of
from workers.reconcile.patch import same
from workers.reconcile.rules import Listing, Outcome, event_of
from workers.relay.rules import PendingEvent, on_the_wire

SCHEMAS = {one.place: one.schema for one in catalogue(EXAMPLE_SITE)}
LISTING_CHANGED = f"listing.changed/{ListingChanged.SCHEMA_VERSION}"
AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
BODIES = st.dictionaries(st.text(), JSON, max_size=3) | st.lists(JSON, max_size=3)


def sent(event: EventData) -> Outgoing:
    """The message that the relay publishes."""
    row = PendingEvent(
        connection_id=getattr(event, "connection_id", 0),
        event_id=new_id(),
        type=type(event).TYPE,
        schema_version=type(event).SCHEMA_VERSION,
        subject=subject_of(event),
        listing_id=getattr(event, "listing_id", None),
        data=dumps(event).decode(),
        headers=dumps(headers_of(event)).decode(),
        created_at=AT,
    )
    return on_the_wire(row, EXAMPLE_SITE)


def wrong(message: Outgoing) -> list[str]:
    """What is wrong with a message, by the schema of the whole and by the one that its `dataschema` names."""
    event = loads(message.body)
    place = event["dataschema"].removeprefix(f"{EXAMPLE_SITE}/schemas/")
    return faults(SCHEMAS[f"cloudevents/{place}"], event) + faults(SCHEMAS[place], event["data"])


@st.composite
def changes(draw: st.DrawFn) -> ListingChanged:
    """A change as reconcile tells it, of any two bodies."""
    before, after = draw(BODIES), draw(BODIES)
    change: Change = draw(st.sampled_from(("created", "updated", "deleted")))
    assume(change != "updated" or not same(before, after))
    reason: Reason = draw(st.sampled_from(("webhook", "resync", "unmapped", "gone", "hand")))
    known = Listing(99, listing_id_of(99, "/v1/locations", "1"), "/v1/locations", "1", "/v1/locations/1", version=1)
    known = replace(known, attribute_type="locations", location_id=draw(st.none() | st.text()))
    old = replace(known, body=None if change == "created" else before)
    new = replace(known, body=None if change == "deleted" else after, version=2)
    return event_of(old, Outcome(new, change), reason=reason, delivery_id=new_id(), fetched_at=AT)


@given(changes())
def test_every_change_fits_its_schema(change: ListingChanged) -> None:
    assert wrong(sent(change)) == []


OTHERS = [kind for kind in EVENT_TYPES.values() if kind is not ListingChanged]


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.TYPE)
@given(data=st.data())
def test_every_other_event_fits_its_schema(kind: type[EventData], data: st.DataObject) -> None:
    event = data.draw(values_of(kind))
    assume(not isinstance(event, ListingSnapshot) or event.deleted == (event.current is None))
    assert wrong(sent(event)) == []


@pytest.mark.parametrize("name", REGISTRY)
@given(data=st.data())
def test_every_message_fits_its_schema(name: str, data: st.DataObject) -> None:
    message = data.draw(values_of(REGISTRY[name]))
    assert faults(SCHEMAS[f"messages/{name}/{version_of(REGISTRY[name])}"], examples.told(message)) == []


@given(changes())
def test_the_cloudevents_sdk_reads_every_change(change: ListingChanged) -> None:
    reads_as_sent(sent(change))


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=lambda kind: kind.TYPE)
def test_the_cloudevents_sdk_reads_every_type(kind: type[EventData]) -> None:
    reads_as_sent(sent(examples.EVENTS[kind]))


def reads_as_sent(message: Outgoing) -> None:
    """The SDK tells a structured event by its content type, and finds in it what we put there."""
    read = from_rabbitmq_event(RabbitMQMessage(dict(message.headers), message.content_type, message.body))
    body = loads(message.body)
    assert read.get_specversion() == "1.0"
    assert read.get_id() == message.message_id == body["id"]
    assert read.get_type() == message.type == message.routing_key == body["type"]
    assert read.get_source() == EXAMPLE_SITE
    assert read.get_subject() == body["subject"]
    assert read.get_time() == AT
    assert read.get_datacontenttype() == "application/json"
    assert read.get_dataschema() == body["dataschema"]
    assert read.get_data() == body["data"]
    assert set(read.get_attributes()) == set(body) - {"data"}


# --- what does not fit ---------------------------------------------------------------------------------------------

GOOD = examples.told(examples.EVENTS[ListingChanged])
BAD: dict[str, dict[str, Any]] = {
    "$.change": {"change": "renamed"},
    "$.reason": {"reason": "because"},
    "$.version": {"version": "2"},
    "$.connectionId": {"connectionId": "99"},
    "$.listingId": {"listingId": "not a uuid"},
    "$.fetchedAt": {"fetchedAt": "yesterday"},
    "$.patch[0].op": {"patch": [{"op": "move", "path": "/a", "value": 1}]},
    "$.patch[0]": {"patch": [{"op": "add", "path": "/a"}]},
    "$.previous": {"change": "created", "patch": [], "changedFields": []},
    "$.current": {"change": "deleted", "patch": [], "changedFields": []},
    "$.patch": {"patch": []},
    "$.changedFields": {"change": "created", "previous": None, "patch": []},
}


@pytest.mark.parametrize("place", BAD)
def test_what_contradicts_the_schema_is_refused(place: str) -> None:
    schema = SCHEMAS[LISTING_CHANGED]
    assert faults(schema, GOOD) == []
    assert {line.partition(":")[0] for line in faults(schema, GOOD | BAD[place])} == {place}


@pytest.mark.parametrize("name", GOOD)
def test_no_member_may_be_missing(name: str) -> None:
    without = {member: value for member, value in GOOD.items() if member != name}
    assert faults(SCHEMAS[LISTING_CHANGED], without) != []


def test_an_operation_that_removes_has_no_value() -> None:
    schema = document(PatchOperation, "x")
    assert faults(schema, {"op": "remove", "path": "/a"}) == []
    assert faults(schema, {"op": "remove", "path": "/a", "value": None}) != []


@pytest.mark.parametrize(
    "change", [{"type": "grant.changed"}, {"specversion": "0.3"}, {"dataschema": "x"}, {"id": 7}, {"data": {}}]
)
def test_an_envelope_of_another_kind_is_refused(change: dict[str, Any]) -> None:
    event = loads(sent(examples.EVENTS[ListingChanged]).body)
    schema = SCHEMAS[f"cloudevents/{LISTING_CHANGED}"]
    assert faults(schema, event) == []
    assert faults(schema, event | change) != []
