"""Users' listings on the platform, from a file in JSON or CSV, and what telling them would change. Pure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from common.codec import dumps, loads
from common.errors import GatewayError, Permanent
from common.words import things
from ingress.inventory import as_map, read_locations
from ingress.limits import MAX_BODY

COLUMNS = (
    "locationId", "locationName", "locationStatus", "resourceId", "resourceName", "resourceType", "resourceStatus",
)  # fmt: skip
USER = "userId"
"""The column of a CSV that is about several users."""
_OF_A_RESOURCE = COLUMNS[3:]

Format = Literal["json", "csv"]
Locations = dict[str, Any]
"""By ID, as the guide shows them."""


class BadFile(GatewayError):
    """What is in the file is not users' listings; the text says where and why."""


class Difference(msgspec.Struct, frozen=True, rename="camel"):
    """What becomes of one location of a user; `details` say what of it, when it is changed."""

    user_id: str
    change: Literal["added", "changed", "deleted"]
    location_id: str
    name: str
    details: Sequence[str] = ()


def format_of(name: str, content: str) -> Format:
    """By the file's name, else by what it begins with."""
    ending = name.lower().rpartition(".")[2]
    if ending in ("json", "csv"):
        return "json" if ending == "json" else "csv"
    return "json" if content.lstrip().startswith("{") else "csv"


def read_inventory(content: str, form: Format, user_id: str | None) -> dict[str, Locations]:
    """The maps of the file by user, checked as the admin API checks them.

    The file is about `user_id`; without one it tells users itself: CSV in a column, JSON as a map of maps.

    Raises:
        BadFile: it is none, or one of the maps is more than the admin API takes at once.
    """
    found = _from_json(content, user_id) if form == "json" else _from_csv(content, user_id)
    return {one: _checked(value, one) for one, value in found.items()}


def _checked(value: Any, user_id: str) -> Locations:
    try:
        body = dumps(as_map(read_locations(value)))
    except Permanent as error:
        raise BadFile(f"user {user_id}: {error.detail}") from None
    if len(body) > MAX_BODY:
        raise BadFile(
            f"user {user_id}: {_kib(len(body))}, at most {_kib(MAX_BODY)} at once; "
            "PUT users/{userId}/locations/{ID} of the admin API takes one location"
        )
    plain: Locations = loads(body)
    return plain


def _kib(size: int) -> str:
    return f"{math.ceil(size / 1024)} KiB"


def _from_json(content: str, user_id: str | None) -> dict[str, Any]:
    try:
        value = loads(content.encode())
    except Permanent as error:
        raise BadFile(error.detail) from None
    if user_id is not None:
        return {user_id: value}
    if not isinstance(value, dict) or any(isinstance(one, dict) and "ID" in one for one in value.values()):
        raise BadFile("this is no map by userId of maps by ID; for the listings of one user give --user")
    return value


def differences(user_id: str, known: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[Difference]:
    """What changes when `wanted` is told in place of `known`: what is absent becomes deleted, if it is not yet."""
    found = [_difference(user_id, known.get(one), wanted[one]) for one in sorted(wanted)]
    gone = [
        Difference(user_id, "deleted", one, known[one]["name"])
        for one in sorted(set(known) - set(wanted))
        if known[one]["status"] != "deleted"
    ]
    return [one for one in found if one is not None] + gone


def _difference(user_id: str, known: Any, wanted: Any) -> Difference | None:
    if known is None:
        rooms = len(wanted.get("resources", ()))
        return Difference(
            user_id, "added", wanted["ID"], wanted["name"], (f"{wanted['status']}, {things(rooms, 'resource')}",)
        )
    if known == wanted:
        return None
    details = [*_members(known, wanted, "name", "status"), *_resources(known, wanted)]
    return Difference(user_id, "changed", wanted["ID"], wanted["name"], details or ("the order of its resources",))


def _resources(known: Any, wanted: Any) -> list[str]:
    before, after = ({one["ID"]: one for one in side.get("resources", ())} for side in (known, wanted))
    added = [f"resource {one} added" for one in sorted(set(after) - set(before))]
    gone = [f"resource {one} removed" for one in sorted(set(before) - set(after))]
    changed = [
        f"resource {one} {detail}"
        for one in sorted(set(before) & set(after))
        for detail in _members(before[one], after[one], "name", "status", "type")
    ]
    return [*added, *gone, *changed]


def _members(known: Any, wanted: Any, *names: str) -> list[str]:
    return [f"{name}: {known[name]} → {wanted[name]}" for name in names if known[name] != wanted[name]]


# --- CSV: a line per resource; one without a resource is the location alone -------------------------------------------


def _from_csv(content: str, user_id: str | None) -> dict[str, Any]:
    text = content.removeprefix("\ufeff")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    found: dict[str, Any] = {} if user_id is None else {user_id: {}}
    try:
        heads = [head.strip() for head in next(lines, [])]
        _check_heads(heads, user_id)
        for cells in lines:
            if any(cell.strip() for cell in cells):
                row = _row(heads, cells, lines.line_num)
                _add(found.setdefault(user_id or row[USER], {}), row, lines.line_num)
    except csv.Error as error:
        raise BadFile(f"line {lines.line_num}: {error}") from None
    return found


def _delimiter(content: str) -> str:
    """Spreadsheets of some countries write semicolons."""
    head = content.partition("\n")[0]
    return max((",", ";", "\t"), key=head.count)


def _check_heads(heads: Sequence[str], user_id: str | None) -> None:
    missing = [name for name in COLUMNS if name not in heads]
    if missing or len(set(heads)) != len(heads):
        raise BadFile(f"line 1 must name each of these columns once: {', '.join(COLUMNS)}")
    if (USER in heads) == (user_id is not None):
        raise BadFile(f"whose listings are they? Give either --user, or a column {USER}")


def _row(heads: Sequence[str], cells: Sequence[str], number: int) -> dict[str, str]:
    if len(cells) != len(heads):
        raise BadFile(f"line {number} has {len(cells)} cells, line 1 has {len(heads)}")
    row = {head: cell.strip() for head, cell in zip(heads, cells, strict=True)}
    if row.get(USER) == "":
        raise BadFile(f"line {number} has no {USER}")
    return row


def _add(found: Locations, row: Mapping[str, str], number: int) -> None:
    location = {"ID": row["locationId"], "name": row["locationName"], "status": row["locationStatus"]}
    known = found.setdefault(row["locationId"], {**location})
    if {name: known[name] for name in location} != location:
        raise BadFile(f"line {number}: location {row['locationId']} has another name or status than above")
    if any(row[name] for name in _OF_A_RESOURCE):
        resource = {name: row[f"resource{name.capitalize()}"] for name in ("name", "type", "status")}
        known.setdefault("resources", []).append({"ID": row["resourceId"], **resource})
