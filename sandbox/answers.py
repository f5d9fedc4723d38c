"""Judges what a platform answers us, against the guide: pure functions from an answer to its mistakes, in words."""

import json
import re
from datetime import UTC, datetime
from typing import Any

from sandbox.invent import JsonObject

STATUSES = frozenset({"draft", "active", "private", "pending", "deleted"})
TOKEN_MEMBERS = frozenset({"accessToken", "expires", "refreshToken"})
CHECK_MEMBERS = frozenset({"connectionId", "userId", "locations"})
LOCATION_MEMBERS = frozenset({"ID", "name", "status"})
RESOURCE_MEMBERS = frozenset({"ID", "name", "status", "type"})
_EXPIRES = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


def parsed(raw: bytes) -> JsonObject | None:
    """The JSON object, None when it is none."""
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def token_mistakes(status: int, answer: JsonObject | None) -> list[str]:
    """Of the answer to a code exchange or a refresh."""
    if status != 200 or answer is None:
        return [f"the token answer is {status}, JSON object: {answer is not None}"]
    found = _members("the token answer", answer, TOKEN_MEMBERS)
    found += [
        f"{name} must be a non-empty string"
        for name in sorted(TOKEN_MEMBERS & set(answer))
        if not isinstance(answer[name], str) or not answer[name]
    ]
    if not _EXPIRES.fullmatch(str(answer.get("expires"))):
        found.append(f"expires must be YYYY-MM-DDTHH:MM:SS, is {answer.get('expires')!r}")
    return found


def expires_at(expires: str) -> float:
    """The guide's `expires` (UTC, no offset) as seconds since the epoch."""
    return datetime.strptime(expires, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp()


def check_mistakes(status: int, content_type: str, answer: JsonObject | None, connection_id: int) -> list[str]:
    """Of the answer to check_connection."""
    if status != 200 or answer is None:
        return [f"check_connection is answered {status}, JSON object: {answer is not None}"]
    found = [] if content_type == "application/json; charset=UTF-8" else [f"Content-Type is {content_type!r}"]
    found += _members("check_connection", answer, CHECK_MEMBERS)
    connection = answer.get("connectionId")
    if isinstance(connection, bool) or not isinstance(connection, int) or connection != connection_id:
        found.append(f"connectionId must be the number {connection_id}, is {connection!r}")
    if not isinstance(answer.get("userId"), str):
        found.append("userId must be a string")
    return found + _locations(answer.get("locations"))


def _locations(locations: Any) -> list[str]:
    if not isinstance(locations, dict):
        return ["locations must be a map by ID ({} when none)"]
    return [mistake for key, location in locations.items() for mistake in _location(key, location)]


def _location(key: str, location: Any) -> list[str]:
    where = f"location {key}"
    if not isinstance(location, dict):
        return [f"{where} must be an object"]
    found = _members(where, location, LOCATION_MEMBERS, frozenset({"resources"})) + _strings(where, location)
    if location.get("ID") != key:
        found.append(f"{where} has another ID than its key: {location.get('ID')!r}")
    resources = location.get("resources", [])
    if not isinstance(resources, list):
        return [*found, f"{where}: resources must be a list"]
    return found + [mistake for resource in resources for mistake in _resource(where, resource)]


def _resource(where: str, resource: Any) -> list[str]:
    if not isinstance(resource, dict):
        return [f"a resource of {where} must be an object"]
    where = f"resource {resource.get('ID')} of {where}"
    return _members(where, resource, RESOURCE_MEMBERS) + _strings(where, resource)


def _members(
    where: str, answer: JsonObject, expected: frozenset[str], optional: frozenset[str] = frozenset()
) -> list[str]:
    missing, extra = expected - set(answer), set(answer) - expected - optional
    return [f"{where} lacks {name}" for name in sorted(missing)] + [
        f"{where} has {name}, which the guide does not know" for name in sorted(extra)
    ]


def _strings(where: str, item: JsonObject) -> list[str]:
    found = [
        f"{where}: {name} must be a string"
        for name in ("ID", "name", "type")
        if name in item and not isinstance(item[name], str)
    ]
    if item.get("status") not in STATUSES:
        found.append(f"{where}: status {item.get('status')!r} is none of {sorted(STATUSES)}")
    return found
