"""What an authentic webhook means. Pure: a body goes in, a decision comes out.

Documented by Syncaroo: the members. Where the guide contradicts itself (GUIDE-NOTES) we accept every reading of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Members
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from common.errors import ForbiddenHost, Permanent
from common.identity import plural
from common.urls import AllowedHosts
from ingress.parameters import BadInput, snake
from schemas.messages import Json, PlatformIds, ResyncWanted, UnusableWebhook, WebhookReceived

MAX_URL = 2048
MAX_ID = 255

NAMES = (
    *("connectionId", "webhookType", "action", "metaData", "data", "apiUrl"),
    *("attributeType", "resourceType", "locationId", "resourceId"),
)
"""The members that we read; the guide spells them in camelCase and, elsewhere, in snake_case."""
_SPELLED = {spelling: name for name in NAMES for spelling in (name, snake(name))}

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


@dataclass(frozen=True)
class Receipt:
    """One webhook's arrival: our id for it, whose token it came with, when (aware UTC)."""

    delivery_id: str
    connection_id: int
    received_at: datetime


@dataclass(frozen=True)
class Accept:
    """Its target is wanted."""

    message: WebhookReceived


@dataclass(frozen=True)
class Count:
    """Accepted, and nothing follows: withdrawn by Syncaroo, unknown, or a type that is not kept."""

    kind: Literal["status", "unknown_type", "unsynced_attribute"]


@dataclass(frozen=True)
class Park:
    """Accepted and kept for a person; what is known of its location is wanted instead."""

    reason: Literal["unusable_webhook", "forbidden_host"]
    message: UnusableWebhook | WebhookReceived
    resync: ResyncWanted | None = None


@dataclass(frozen=True)
class Forbid:
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
    """The members of a body, wherever they are: in metaData, then in data, then at the top level."""

    def __init__(self, body: Members[str, Json]) -> None:
        self._top = self._all = _Known.of(body)
        for name in ("data", "metaData"):
            if isinstance(inner := self._top.get(name), dict):
                self._all = _Known.of(inner).before(self._all)

    def is_of_another_connection(self, connection_id: int) -> bool:
        given = _id(self._top.get("connectionId"))
        if given is None:
            raise Unusable("no connectionId")
        return given != str(connection_id)

    def only_counted(
        self, attributes: frozenset[str]
    ) -> Literal["status", "unknown_type", "unsynced_attribute"] | None:
        kind = _text(self._top.get("webhookType"))
        if kind is not None and kind.lower() == "status":
            return "status"
        if kind is not None and kind.lower() != "data":
            return "unknown_type"
        attribute = plural(_text(self._all.get("attributeType")))
        return "unsynced_attribute" if attribute is not None and attribute not in attributes else None

    def url(self) -> str:
        url = _text(self._all.get("apiUrl"), MAX_URL)
        if url is None:
            raise Unusable("no apiUrl")
        if not _AUTHORITY.sub("", url).isascii():
            raise Unusable("apiUrl is not ASCII")
        return url

    def mapping(self) -> PlatformIds:
        if not isinstance(self._top.get("metaData") or {}, dict):
            raise Unusable("metaData is not an object")
        return PlatformIds(
            attribute_type=plural(_text(self._all.get("attributeType"))),
            resource_type=_text(self._all.get("resourceType")),
            location_id=_id(self._all.get("locationId")),
            resource_id=_id(self._all.get("resourceId")),
        )

    def action(self) -> str | None:
        action = self._top.get("action")
        return action.strip().lower()[:MAX_ID] or None if isinstance(action, str) else None

    def location_if_alone(self) -> str | None:
        """The location, when that is all there is to go by: no apiUrl anywhere."""
        try:
            return None if self._all.get("apiUrl") else _id(self._all.get("locationId"))
        except Unusable:
            return None


class _Known:
    """Those members of an object that we read, by their camelCase names; null counts as absent."""

    def __init__(self, values: dict[str, Json], differing: frozenset[str]) -> None:
        self._values = values
        self._differing = differing

    @classmethod
    def of(cls, members: Members[str, Json]) -> _Known:
        """Of one object."""
        values: dict[str, Json] = {}
        differing = set()
        for spelling, value in members.items():
            name = _SPELLED.get(spelling)
            if name is None or value is None:
                continue
            if name in values and _comparable(values[name]) != _comparable(value):
                differing.add(name)
            values[name] = value
        return cls(values, frozenset(differing))

    def before(self, other: _Known) -> _Known:
        """Of two: what is not here, or empty, is looked for there. Each may contradict itself."""
        given = {name: value for name, value in self._values.items() if value != ""}
        return _Known({**other._values, **given}, self._differing | other._differing)

    def get(self, name: str) -> Json:
        """The member; None: absent.

        Raises:
            BadInput: it is there under both spellings, and they differ.
        """
        if name in self._differing:
            raise BadInput(f"{name} and {snake(name)} differ")
        return self._values.get(name)


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
