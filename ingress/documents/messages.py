"""Messages on exchanges and queues, as AsyncAPI describes them: headers, payloads, examples. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ingress.documents import examples
from ingress.documents.place import Place
from schemas.catalogue import envelope, version_of
from schemas.events import (
    EVENT_TYPES,
    ConnectionChanged,
    EventData,
    GrantChanged,
    ListingChanged,
    ListingSnapshot,
    SnapshotCompleted,
    SyncHeld,
    dataschema_of,
)
from schemas.json_schema import Schema, components
from schemas.messages import REGISTRY, SnapshotRequested

Json = dict[str, Any]

CONTENT_TYPE = "application/cloudevents+json"
AMQP = "0.3.0"
SCHEMAS = "#/components/schemas/{name}"

TRACE = "traceparent"
HEADERS: dict[str, str] = {
    "connectionId": "Syncaroo's number of the connection, as text.",
    "locationId": "The platform's own id; left out while it is not known.",
    "resourceId": "The platform's own id; left out while it is not known.",
    "attributeType": "Such as resources.",
    "change": "created, updated or deleted.",
    TRACE: "W3C trace context, to go on with the trace in which the event was published; only where traces are on.",
}
_OF_LISTING = ("connectionId", "attributeType")
HEADERS_OF: dict[type[EventData], tuple[Sequence[str], Sequence[str]]] = {
    ListingChanged: ((*_OF_LISTING, "change"), ("locationId", "resourceId")),
    ConnectionChanged: (("connectionId",), ()),
    GrantChanged: ((), ()),
    SyncHeld: (("connectionId",), ()),
    ListingSnapshot: (_OF_LISTING, ("locationId", "resourceId")),
    SnapshotCompleted: ((), ()),
}
"""Headers that a message always has, and those that it may have."""


def internal() -> list[str]:
    """Names of the messages between our own processes."""
    return [name for name in REGISTRY if name != SnapshotRequested.__name__]


def messages(place: Place) -> Json:
    """All of them, by name."""
    events = {kind.__name__: _event(kind, place) for kind in EVENT_TYPES.values()}
    ours = {name: _message(name, place) | {"tags": [{"name": "internal"}]} for name in internal()}
    return events | {SnapshotRequested.__name__: _request(place)} | ours


def _event(kind: type[EventData], place: Place) -> Json:
    """A CloudEvent; its headers are there to bind and filter by."""
    example = examples.EVENTS[kind]
    headers, payload = _example_headers(kind, example), _example_event(kind, example, place)
    told = {
        "name": kind.TYPE,
        "title": kind.__name__,
        "summary": components([kind])[1][kind.__name__]["description"],
        "contentType": CONTENT_TYPE,
        "headers": _headers(kind),
        "payload": {"$ref": SCHEMAS.format(name=f"{kind.__name__}Event")},
        "externalDocs": {"url": _schema_url(place, f"cloudevents/{kind.TYPE}/{kind.SCHEMA_VERSION}")},
        "bindings": {"amqp": {"messageType": kind.TYPE, "bindingVersion": AMQP}},
        "examples": [{"name": kind.__name__, "headers": headers, "payload": payload}],
    }
    answers = {"correlationId": {"location": "$message.payload#/subject", "description": "The snapshot's id."}}
    return told | (answers if kind is SnapshotCompleted else {})


def _headers(kind: type[EventData]) -> Schema:
    members = {name: {"type": "string", "description": HEADERS[name]} for name in [*_names(kind), TRACE]}
    return {"type": "object", "properties": members, "required": list(HEADERS_OF[kind][0])}


def _names(kind: type[EventData]) -> list[str]:
    """Of the headers that tell of the event itself."""
    always, sometimes = HEADERS_OF[kind]
    return [name for name in HEADERS if name in (*always, *sometimes)]


def _example_headers(kind: type[EventData], example: EventData) -> Json:
    data = examples.told(example)
    return {name: str(data[name]) for name in _names(kind)}


def _example_event(kind: type[EventData], example: EventData, place: Place) -> Json:
    return {
        "specversion": "1.0",
        "id": examples.EVENT_ID,
        "source": place.source,
        "type": kind.TYPE,
        "subject": examples.SUBJECTS[kind],
        "time": examples.moment(),
        "datacontenttype": "application/json",
        "dataschema": dataschema_of(place.source, kind),
        "data": examples.told(example),
    }


def _message(name: str, place: Place) -> Json:
    """A message of ours; `schema` is the way back to its type."""
    members = {"schema": {"const": name}, "attempt": {"type": "integer", "description": "How often it has failed."}}
    return {
        "name": name,
        "title": name,
        "summary": components([REGISTRY[name]])[1][name]["description"],
        "contentType": "application/json",
        "headers": {"type": "object", "properties": members, "required": ["schema"]},
        "payload": {"$ref": SCHEMAS.format(name=name)},
        "externalDocs": {"url": _schema_url(place, f"messages/{name}/{version_of(REGISTRY[name])}")},
    }


def _request(place: Place) -> Json:
    """The one message of ours that anybody may send: it needs no headers."""
    name = SnapshotRequested.__name__
    example = {one: value for one, value in examples.told(examples.REQUEST).items() if value is not None}
    more = {
        "correlationId": {"location": "$message.payload#/snapshotId", "description": "Yours, or given by the gateway."},
        "tags": [{"name": "snapshots"}],
        "examples": [{"name": "OfOneConnection", "payload": example}],
    }
    message = _message(name, place) | more
    del message["headers"]
    return message


def payloads(place: Place) -> Json:
    """Payloads in AsyncAPI's own format, which has no ids: those of JSON Schema are a message's `externalDocs`."""
    _, named = components([*EVENT_TYPES.values(), *REGISTRY.values()], SCHEMAS)
    events = {f"{kind.__name__}Event": _payload(kind, place) for kind in EVENT_TYPES.values()}
    return named | events


def _payload(kind: type[EventData], place: Place) -> Schema:
    schema = envelope(kind, place.source)
    members = schema["properties"] | {"data": {"$ref": SCHEMAS.format(name=kind.__name__)}}
    return {name: schema[name] for name in ("title", "description", "type", "required")} | {"properties": members}


def _schema_url(place: Place, name: str) -> str:
    return f"{place.site_uri}/schemas/{name}"
