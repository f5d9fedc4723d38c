"""The AsyncAPI 3.0 document: exchanges, queues and messages, as a service sees them that subscribes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from common.broker.topology import EVENT_LOG, EVENTS, SHARDS, WORK, queue_name, work_stages
from ingress.documents.messages import AMQP, CONTENT_TYPE, messages, payloads
from ingress.documents.place import VERSION, Place
from schemas.events import (
    ConnectionChanged,
    EventData,
    GrantChanged,
    ListingChanged,
    ListingSnapshot,
    SnapshotCompleted,
    SyncHeld,
)
from schemas.messages import REGISTRY, Message, SnapshotRequested

Json = dict[str, Any]

BROADCAST: tuple[type[EventData], ...] = (ListingChanged, ConnectionChanged, GrantChanged, SyncHeld)
REPLIES: tuple[type[EventData], ...] = (ListingSnapshot, SnapshotCompleted)

ABOUT = f"""\
Seen from a service downstream: it receives what the gateway sends, and sends what the gateway receives.

Events are CloudEvents 1.0 in structured JSON mode, persistent, delivered at least once. The AMQP properties
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
        "components": {"messages": messages(place), "schemas": payloads(place)},
    }


# --- channels and operations ---------------------------------------------------------------------------------------


def _channels() -> Json:
    return {
        "events": _events(),
        "eventLog": _event_log(),
        "snapshotRequests": _snapshot_requests(),
        "snapshotReplies": _snapshot_replies(),
        "work": _work(),
    }


def _events() -> Json:
    return {
        "address": "{type}",
        "title": EVENTS,
        "description": "The address is the routing key; `#` binds to everything.",
        "parameters": {"type": {"description": "The type of the event.", "enum": [kind.TYPE for kind in BROADCAST]}},
        "messages": _message_refs(BROADCAST),
        "tags": [{"name": "events"}],
        "bindings": {"amqp": _exchange(EVENTS)},
    }


def _event_log() -> Json:
    return {
        "address": EVENT_LOG,
        "title": EVENT_LOG,
        "description": "A stream of all events, as long as EVENT_LOG_AGE says: read it with the consumer argument "
        "`x-stream-offset` (first, a time, an offset), a prefetch, and acknowledgements.",
        "messages": _message_refs(BROADCAST),
        "tags": [{"name": "events"}],
        "bindings": {"amqp": _queue(EVENT_LOG)},
    }


def _snapshot_requests() -> Json:
    return {
        "address": queue_name("snapshot"),
        "title": queue_name("snapshot"),
        "description": "Publish to the default exchange, with the queue's name as routing key.",
        "messages": _message_refs([SnapshotRequested]),
        "tags": [{"name": "snapshots"}],
        "bindings": {"amqp": _queue(queue_name("snapshot"))},
    }


def _snapshot_replies() -> Json:
    return {
        "address": None,
        "title": "The queue that the request names",
        "description": "Declare it before you ask: durable, of any kind and name that does not begin with "
        "`syncaroo.`. The AMQP property `correlation_id` is the snapshot's id.",
        "messages": _message_refs(REPLIES),
        "tags": [{"name": "snapshots"}],
    }


def _work() -> Json:
    return {
        "address": "{stage}.{shard}",
        "title": WORK,
        "description": "Internal: between the gateway's own processes. The header `schema` names the message.",
        "parameters": {
            "stage": {"enum": work_stages()},
            "shard": {"description": f"0 to {SHARDS - 1}, by the connection."},
        },
        "messages": _message_refs(REGISTRY.values()),
        "tags": [{"name": "internal"}],
        "bindings": {"amqp": _exchange(WORK)},
    }


def _operations() -> Json:
    return {
        "receiveEvents": _receiving("events", "What changed, as it changes.", BROADCAST),
        "replayEvents": _receiving("eventLog", "What changed, from an offset or a time on.", BROADCAST),
        "requestSnapshot": _requesting(),
    }


def _receiving(channel: str, summary: str, kinds: Sequence[type[EventData]]) -> Json:
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{kind.__name__}"} for kind in kinds],
        "bindings": {"amqp": {"ack": True, "bindingVersion": AMQP}},
    }


def _requesting() -> Json:
    return {
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
    }


def _message_refs(kinds: Iterable[type[EventData] | type[Message]]) -> Json:
    return {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"} for kind in kinds}


def _exchange(name: str) -> Json:
    exchange = {"name": name, "type": "topic", "durable": True, "autoDelete": False}
    return {"is": "routingKey", "exchange": exchange, "bindingVersion": AMQP}


def _queue(name: str) -> Json:
    queue = {"name": name, "durable": True, "exclusive": False, "autoDelete": False}
    return {"is": "queue", "queue": queue, "bindingVersion": AMQP}
