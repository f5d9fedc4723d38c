"""What operators send and see: users' bodies, filters, cursors, masked dead letters. Pure."""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.codec import dumps, loads
from common.errors import BadJson
from common.identity import place_of, plural
from ingress.parameters import BadInput, check_text, one, positive_number, snake
from schemas.messages import Json

DEFAULT_LIMIT = 100
MAX_LIMIT = 500
MAX_NAME = 200
MAX_PASSWORD = 1024
MASK = "[sealed]"

_USER_MEMBERS = ("userId", "login", "password")
_SECRET_NAMES = re.compile(r"^sealed|token|secret|password|authorization", re.IGNORECASE)


@dataclass(frozen=True)
class UserChange:
    """A user as an operator wants it; None leaves login or password as they are."""

    user_id: str
    login: str | None
    password: str | None = field(repr=False)


def read_user(value: Json, user_id: str) -> UserChange:
    """The body of `PUT users/{userId}`.

    Raises:
        BadInput: it is not one, or names another user.
    """
    if not isinstance(value, dict):
        raise BadInput("the body must be an object with userId, login and password")
    known = {*_USER_MEMBERS, *map(snake, _USER_MEMBERS)}
    if set(value) - known:
        raise BadInput("the body may hold userId, login and password only")
    if one(value, "userId") not in (None, user_id):
        raise BadInput("userId in the body differs from the one in the address")
    login = _optional_text(value.get("login"), "login", MAX_NAME)
    if login is not None and login != login.strip():
        raise BadInput("login must not begin or end with blanks")
    return UserChange(user_id, login, _optional_text(value.get("password"), "password", MAX_PASSWORD))


def _optional_text(value: Json, name: str, longest: int) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise BadInput(f"{name} must be a text of 1 to {longest} characters")
    return check_text(value, name)


def read_name(text: str, name: str) -> str:
    """An id from the address: 1 to 200 characters.

    Raises:
        BadInput: it is not one.
    """
    checked = _optional_text(text, name, MAX_NAME)
    assert checked is not None
    return checked


Cursor = tuple[int | str, ...]
"""Where a page ended: the sort key of its last item."""


@dataclass(frozen=True)
class Paging:
    """Which part of a list: up to `limit` items after `after`."""

    after: Cursor | None
    limit: int


def read_paging(values: Mapping[str, str], *kinds: type[int] | type[str]) -> Paging:
    """`after` and `limit`; `kinds` are the types of the cursor's parts.

    Raises:
        BadInput: one of them is wrong.
    """
    limit = positive_number(values.get("limit", str(DEFAULT_LIMIT)), "limit")
    if limit > MAX_LIMIT:
        raise BadInput(f"limit must be at most {MAX_LIMIT}")
    after = values.get("after")
    return Paging(None if after is None else _read_cursor(after, kinds), limit)


def cursor(*parts: int | str) -> str:
    """The opaque text of a cursor."""
    return urlsafe_b64encode(dumps(parts)).decode().rstrip("=")


def _read_cursor(text: str, kinds: tuple[type[int] | type[str], ...]) -> Cursor:
    try:
        parts = loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError, BadJson):
        parts = None
    if not isinstance(parts, list) or [type(part) for part in parts] != list(kinds):
        raise BadInput("after must be a cursor that a page's next gave")
    for part in parts:
        if isinstance(part, str):
            check_text(part, "after")
        elif abs(part) >= 2**63:
            raise BadInput("after must be a cursor that a page's next gave")
    return tuple(parts)


@dataclass(frozen=True)
class ListingFilter:
    """Which listings; None: any. `path` is what the spellings of a listing's own URL share."""

    connection_id: int | None
    location_id: str | None
    attribute_type: str | None
    item_id: str | None
    path: str | None


def read_listing_filter(values: Mapping[str, str]) -> ListingFilter:
    """`connectionId`, `locationId`, `attributeType` (singular or plural), `itemId`, `url` (or the path of one).

    Raises:
        BadInput: `connectionId` is not a number, or `url` is not one.
    """
    return ListingFilter(
        connection_id=connection_of(values),
        location_id=one(values, "locationId"),
        attribute_type=plural(one(values, "attributeType")),
        item_id=one(values, "itemId"),
        path=path_of(values),
    )


@dataclass(frozen=True)
class TargetFilter:
    """Which targets; None: any. `url` is as it was given, `path` what its spellings share."""

    connection_id: int | None
    url: str
    path: str | None


def read_target_filter(values: Mapping[str, str]) -> TargetFilter:
    """`connectionId`, `url` (or the path of one).

    Raises:
        BadInput: `connectionId` is not a number, or `url` is not one.
    """
    return TargetFilter(connection_of(values), values.get("url", ""), path_of(values))


def connection_of(values: Mapping[str, str]) -> int | None:
    """The parameter `connectionId`.

    Raises:
        BadInput: it is not a number.
    """
    text = one(values, "connectionId")
    return None if text is None else positive_number(text, "connectionId")


def path_of(values: Mapping[str, str]) -> str | None:
    """The path of the parameter `url`, as all spellings of that URL share it; a path alone will do.

    Raises:
        BadInput: it is no URL.
    """
    url = values.get("url")
    if url is None:
        return None
    try:
        return place_of(url if "://" in url else f"https://api/{url}").path
    except ValueError:
        raise BadInput("url must be a URL, or the path of one") from None


def queue_of(text: str | None) -> str | None:
    """The queue of parked things that an operator means by `fetch`, `syncaroo.fetch` or `syncaroo.fetch.dead`."""
    if text is None:
        return None
    return "syncaroo." + text.removeprefix("syncaroo.").removesuffix(".dead")


def shown_body(body: bytes) -> Any:
    """A parked message as a person may see it: secrets masked; text when it is not JSON."""
    try:
        return masked(loads(body))
    except BadJson:
        return body.decode(errors="replace")


def masked(value: Json) -> Json:
    """The value, with every member that may hold a secret masked."""
    if isinstance(value, dict):
        return {name: MASK if _SECRET_NAMES.search(name) else masked(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner) for inner in value]
    return value
