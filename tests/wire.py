"""What a broker has delivered, as others read it: the CloudEvents SDK, and the JSON Schema of the whole event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import aiohttp
from aio_pika.abc import AbstractIncomingMessage
from cloudevents.core.bindings.rabbitmq import RabbitMQMessage, from_rabbitmq_event

from common.codec import loads
from schemas.catalogue import catalogue
from schemas.events import EVENT_TYPES, dataschema_of
from tests.json_schemas import faults

HEADERS = ("connectionId", "locationId", "resourceId", "attributeType", "change")
"""By the contract; the broker adds some that begin with `x-`."""


async def served_schemas(url: str, messages: Iterable[AbstractIncomingMessage]) -> dict[str, Any]:
    """By `dataschema` the schema of the whole event, as the ingress beside it serves it."""
    named = {loads(message.body)["dataschema"] for message in messages}
    found: dict[str, Any] = {}
    async with aiohttp.ClientSession() as session:
        for name in named:
            place = name.removeprefix(f"{url}/schemas/")
            async with session.get(f"{url}/schemas/cloudevents/{place}") as answer:
                assert (answer.status, answer.content_type) == (200, "application/schema+json"), name
                found[name] = await answer.json(content_type=None)
    return found


def published_schemas(source: str) -> dict[str, Any]:
    """The same where no ingress is."""
    kinds = EVENT_TYPES.values()
    whole = {one.place: one.schema for one in catalogue(source)}
    return {dataschema_of(source, kind): whole[f"cloudevents/{kind.TYPE}/{kind.SCHEMA_VERSION}"] for kind in kinds}


def misread(message: AbstractIncomingMessage, schemas: Mapping[str, Any]) -> list[str]:
    """What is wrong with it, by either reader and by the RabbitMQ binding; empty: nothing."""
    event, read = loads(message.body), _read(message)
    told = {
        "content_type": (message.content_type, "application/cloudevents+json"),
        "delivery_mode": (message.delivery_mode, 2),
        "message_id": (message.message_id, event["id"]),
        "type": (message.type, event["type"]),
        "headers": (_headers(message), _headers_in(event["data"])),
        "attributes": (read.get_attributes(), _attributes_in(event)),
        "data": (read.get_data(), event["data"]),
    }
    return [
        *(f"{name}: {found!r} instead of {wanted!r}" for name, (found, wanted) in told.items() if found != wanted),
        *faults(schemas[event["dataschema"]], event),
    ]


def _headers(message: AbstractIncomingMessage) -> dict[str, Any]:
    return {name: value for name, value in message.headers.items() if not name.startswith("x-")}


def _headers_in(data: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(data[name]) for name in HEADERS if data.get(name) is not None}


def _attributes_in(event: Mapping[str, Any]) -> dict[str, Any]:
    attributes = {name: value for name, value in event.items() if name != "data"}
    return attributes | {"time": datetime.fromisoformat(event["time"])}


def _read(message: AbstractIncomingMessage) -> Any:
    headers = {name: str(value) for name, value in message.headers.items()}
    return from_rabbitmq_event(RabbitMQMessage(headers, message.content_type, message.body))
