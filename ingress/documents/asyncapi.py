"""The AsyncAPI 3.0 document: exchanges, queues and messages, as a service sees them that subscribes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.broker.topology import EVENT_LOG, EVENTS, STAGES, WORK, queue_name
from ingress.documents import examples
from ingress.documents.place import VERSION, Place
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

BROADCAST: tuple[type[EventData], ...] = (ListingChanged, ConnectionChanged, GrantChanged, SyncHeld)
REPLIES: tuple[type[EventData], ...] = (ListingSnapshot, SnapshotCompleted)

HEADERS: dict[str, str] = {
    "connectionId": "Syncaroo's number of the connection, as text.",
    "locationId": "The platform's own id; left out while it is not known.",
    "resourceId": "The platform's own id; left out while it is not known.",
    "attributeType": "Such as resources.",
    "change": "created, updated or deleted.",
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

ABOUT = f"""\
Seen from a service downstream: it receives what the gateway sends, and sends what the gateway receives.

Every message is a CloudEvent 1.0 in structured JSON mode, persistent, delivered at least once. The AMQP properties
`message_id` and `type` are the event's `id` and `type`, which is the routing key, too. `version` grows by exactly 1 per
listing: drop what you have seen. Bind a queue of your own to the exchange `{EVENTS}`; it may be declared by
subscribers: topic, durable, without arguments. The channel of internal messages is there for who operates the gateway;
it may change with any release."""


def asyncapi(place: Place) -> Json:
    """The document of a deployment."""
    return {
        "asyncapi": "3.0.0",
        "id": f"{place.site_uri}/asyncapi.json",
        "info": {
            "title": "Syncaroo Gateway: events",
            "version": VERSION,
            "description": ABOUT,
            "tags": [{"name": "events"}, {"name": "snapshots"}, {"name": "internal"}],
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": _channels(),
        "operations": _operations(),
        "components": {"messages": _messages(place), "schemas": _schemas(place)},
    }


# --- channels and operations ---------------------------------------------------------------------------------------


def _channels() -> Json:
    return {
        "events": {
            "address": "{type}",
            "title": EVENTS,
            "description": "The address is the routing key; `#` binds to everything.",
            "parameters": {
                "type": {"description": "The type of the event.", "enum": [kind.TYPE for kind in BROADCAST]}
            },
            "messages": _message_refs(BROADCAST),
            "tags": [{"name": "events"}],
            "bindings": {"amqp": _exchange(EVENTS)},
        },
        "eventLog": {
            "address": EVENT_LOG,
            "title": EVENT_LOG,
            "description": "A stream of all events, as long as EVENT_LOG_AGE says: read it with the consumer argument "
            "`x-stream-offset` (first, a time, an offset), a prefetch, and acknowledgements.",
            "messages": _message_refs(BROADCAST),
            "tags": [{"name": "events"}],
            "bindings": {"amqp": _queue(EVENT_LOG)},
        },
        "snapshotRequests": {
            "address": queue_name("snapshot"),
            "title": queue_name("snapshot"),
            "description": "Publish to the default exchange, with the queue's name as routing key.",
            "messages": {SnapshotRequested.__name__: {"$ref": f"#/components/messages/{SnapshotRequested.__name__}"}},
            "tags": [{"name": "snapshots"}],
            "bindings": {"amqp": _queue(queue_name("snapshot"))},
        },
        "snapshotReplies": {
            "address": None,
            "title": "The queue that the request names",
            "description": "Declare it before you ask: durable, of any kind and name that does not begin with "
            "`syncaroo.`. The AMQP property `correlation_id` is the snapshot's id.",
            "messages": _message_refs(REPLIES),
            "tags": [{"name": "snapshots"}],
        },
        "work": {
            "address": "{stage}.{shard}",
            "title": WORK,
            "description": "Internal: between the gateway's own processes. The header `schema` names the message.",
            "parameters": {
                "stage": {"enum": list(STAGES)},
                "shard": {"description": "0 to 63, by the connection."},
            },
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _internal()},
            "tags": [{"name": "internal"}],
            "bindings": {"amqp": _exchange(WORK)},
        },
    }


def _operations() -> Json:
    return {
        "receiveEvents": _operation("receive", "events", "What changed, as it changes.", BROADCAST),
        "replayEvents": _operation("receive", "eventLog", "What changed, from an offset or a time on.", BROADCAST),
        "requestSnapshot": {
            "action": "send",
            "channel": {"$ref": "#/channels/snapshotRequests"},
            "summary": "Ask for the state of all listings, or of those that fit, in a queue of yours.",
            "messages": [{"$ref": f"#/channels/snapshotRequests/messages/{SnapshotRequested.__name__}"}],
            "reply": {
                "address": {"location": "$message.payload#/to", "description": "The queue that the request names."},
                "channel": {"$ref": "#/channels/snapshotReplies"},
                "messages": [{"$ref": f"#/channels/snapshotReplies/messages/{kind.__name__}"} for kind in REPLIES],
            },
            "bindings": {"amqp": {"deliveryMode": 2, "mandatory": True, "bindingVersion": AMQP}},
        },
    }


def _operation(action: str, channel: str, summary: str, kinds: Sequence[type[EventData]]) -> Json:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{kind.__name__}"} for kind in kinds],
        "bindings": {"amqp": {"ack": True, "bindingVersion": AMQP}},
    }


def _message_refs(kinds: Sequence[type[EventData]]) -> Json:
    return {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"} for kind in kinds}


def _exchange(name: str) -> Json:
    exchange = {"name": name, "type": "topic", "durable": True, "autoDelete": False}
    return {"is": "routingKey", "exchange": exchange, "bindingVersion": AMQP}


def _queue(name: str) -> Json:
    queue = {"name": name, "durable": True, "exclusive": False, "autoDelete": False}
    return {"is": "queue", "queue": queue, "bindingVersion": AMQP}


def _internal() -> list[str]:
    return [name for name in REGISTRY if name != SnapshotRequested.__name__]


# --- messages ------------------------------------------------------------------------------------------------------


def _messages(place: Place) -> Json:
    events = {kind.__name__: _event(kind, place) for kind in EVENT_TYPES.values()}
    internal = {name: _message(name, place) | {"tags": [{"name": "internal"}]} for name in _internal()}
    return events | {SnapshotRequested.__name__: _request(place)} | internal


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
    always, sometimes = HEADERS_OF[kind]
    names = [name for name in HEADERS if name in (*always, *sometimes)]
    members = {name: {"type": "string", "description": HEADERS[name]} for name in names}
    return {"type": "object", "properties": members, "required": list(always)}


def _example_headers(kind: type[EventData], example: EventData) -> Json:
    data = examples.told(example)
    return {name: str(data[name]) for name in _headers(kind)["properties"]}


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


def _schemas(place: Place) -> Json:
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
