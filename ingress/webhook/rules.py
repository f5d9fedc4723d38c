"""What an authentic webhook means. Pure: a body goes in, a decision comes out.

Documented by Syncaroo: the members. Where the guide contradicts itself (GUIDE-NOTES) we accept every reading of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Members
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from common.errors import ForbiddenHost, Permanent
from common.identity import plural
from common.urls import AllowedHosts
from ingress.parameters import BadInput, snake
from schemas.messages import Json, PlatformIds, ResyncWanted, UnusableWebhook, WebhookReceived

MAX_URL = 2048
MAX_ID = 255


def _spelled(*names: str) -> dict[str, str]:
    """Names by each of their spellings: camelCase as the guide has it and, elsewhere, snake_case."""
    return {spelling: name for name in names for spelling in (name, snake(name))}


_ANYWHERE = _spelled("apiUrl", "attributeType", "resourceType", "locationId", "resourceId")
_AT_THE_TOP = _spelled("connectionId", "webhookType", "action", "metaData", "data") | _ANYWHERE

_AUTHORITY = re.compile(r"^[^/?#]*//[^/?#\\]*")


class Unusable(Permanent):
    """Authentic and JSON, but it tells no target, or has another shape than Syncaroo documents."""

    def __init__(self, detail: str) -> None:
        super().__init__("unusable_webhook", detail)


@dataclass(frozen=True)
class Terms:
    """What the settings say: where a token may go, and which attribute types are kept (plural, lower case)."""

    allowed: AllowedHosts
    attributes: frozenset[str]


class Receipt(msgspec.Struct, frozen=True):
    """One webhook's arrival: our id for it, whose token it came with, when (aware UTC)."""

    delivery_id: str
    connection_id: int
    received_at: datetime


class Accept(msgspec.Struct, frozen=True):
    """Its target is wanted."""

    message: WebhookReceived


class Count(msgspec.Struct, frozen=True):
    """Accepted, and nothing follows: withdrawn by Syncaroo, unknown, or a type that is not kept."""

    kind: Literal["status", "unknown_type", "unsynced_attribute"]


class Park(msgspec.Struct, frozen=True):
    """Accepted and kept for a person; what is known of its location is wanted instead."""

    reason: Literal["unusable_webhook", "forbidden_host"]
    message: UnusableWebhook | WebhookReceived
    resync: ResyncWanted | None = None


class Forbid(msgspec.Struct, frozen=True):
    """The token is another connection's."""


Decision = Accept | Count | Park | Forbid


def decide(body: dict[str, Json], receipt: Receipt, terms: Terms) -> Decision:
    """Decide about the decoded body of a webhook.

    Raises:
        BadInput: a name is there in camelCase and in snake_case, and the two differ.
    """
    found = _Found(body)
    try:
        if found.is_of_another_connection(receipt.connection_id):
            return Forbid()
        if kind := found.only_counted(terms.attributes):
            return Count(kind)
        url, mapping = found.url(), found.mapping()
    except Unusable:
        return _park(body, found, receipt)
    message = WebhookReceived(
        delivery_id=receipt.delivery_id,
        connection_id=receipt.connection_id,
        url=url,
        mapping=mapping,
        action=found.action(),
        received_at=receipt.received_at,
    )
    try:
        terms.allowed.check(url)
    except ForbiddenHost:
        return Park("forbidden_host", message)
    return Accept(message)


def _park(body: dict[str, Json], found: _Found, receipt: Receipt) -> Park:
    message = UnusableWebhook(
        delivery_id=receipt.delivery_id,
        connection_id=receipt.connection_id,
        body=body,
        received_at=receipt.received_at,
    )
    location_id = found.location_if_alone()
    resync = None if location_id is None else ResyncWanted(connection_id=receipt.connection_id, location_id=location_id)
    return Park("unusable_webhook", message, resync)


class _Found:
    """The members of a body that we read, by their camelCase names; null counts as absent.

    What a listing is may be told in metaData, in data or at the top level, and is looked for in that order.
    """

    def __init__(self, body: Members[str, Json]) -> None:
        self._differing: set[str] = set()
        self._values = self._read(body, _AT_THE_TOP)
        for name in ("data", "metaData"):
            if isinstance(inner := self._get(name), dict):
                given = self._read(inner, _ANYWHERE)
                self._values |= {name: value for name, value in given.items() if value != ""}

    def _read(self, members: Members[str, Json], spelled: Members[str, str]) -> dict[str, Json]:
        values: dict[str, Json] = {}
        for spelling, value in members.items():
            name = spelled.get(spelling)
            if name is None or value is None:
                continue
            if name in values and _comparable(values[name]) != _comparable(value):
                self._differing.add(name)
            if spelling == name or name not in values:
                values[name] = value
        return values

    def _get(self, name: str) -> Json:
        """The member; None: absent.

        Raises:
            BadInput: it is there under both spellings, and they differ.
        """
        if name in self._differing:
            raise BadInput(f"{name} and {snake(name)} differ")
        return self._values.get(name)

    def is_of_another_connection(self, connection_id: int) -> bool:
        given = _id(self._get("connectionId"))
        if given is None:
            raise Unusable("no connectionId")
        return given != str(connection_id)

    def only_counted(
        self, attributes: frozenset[str]
    ) -> Literal["status", "unknown_type", "unsynced_attribute"] | None:
        kind = _text(self._get("webhookType"))
        if kind is not None and kind.lower() == "status":
            return "status"
        if kind is not None and kind.lower() != "data":
            return "unknown_type"
        attribute = plural(_text(self._get("attributeType")))
        return "unsynced_attribute" if attribute is not None and attribute not in attributes else None

    def url(self) -> str:
        url = _text(self._get("apiUrl"), MAX_URL)
        if url is None:
            raise Unusable("no apiUrl")
        if not (url.isascii() or _AUTHORITY.sub("", url).isascii()):
            raise Unusable("apiUrl is not ASCII")
        return url

    def mapping(self) -> PlatformIds:
        if not isinstance(self._get("metaData") or {}, dict):
            raise Unusable("metaData is not an object")
        return PlatformIds(
            attribute_type=plural(_text(self._get("attributeType"))),
            resource_type=_text(self._get("resourceType")),
            location_id=_id(self._get("locationId")),
            resource_id=_id(self._get("resourceId")),
        )

    def action(self) -> str | None:
        action = self._get("action")
        return action.strip().lower()[:MAX_ID] or None if isinstance(action, str) else None

    def location_if_alone(self) -> str | None:
        """The location, when that is all there is to go by: no apiUrl anywhere."""
        try:
            return None if self._get("apiUrl") else _id(self._get("locationId"))
        except Unusable:
            return None


def _comparable(value: Json) -> Json:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _id(value: Json) -> str | None:
    """An id as text; strings and whole numbers alike.

    Raises:
        Unusable: it is something else, or no database would take it.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return _text(value)


def _text(value: Json, longest: int = MAX_ID) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > longest or "\0" in value:
        raise Unusable("a member is of another type than documented")
    return value
