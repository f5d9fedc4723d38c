"""The platform's own listings, as check_connection shows them to Syncaroo.

Documented by Syncaroo: the shape and the five statuses. Ours: what we refuse when it is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from common.codec import dumps
from ingress.parameters import BadInput, check_text
from schemas.messages import Json

Status = Literal["draft", "active", "private", "pending", "deleted"]
Text = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1})]


class Resource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A room or desk of a location. `type`: meeting-room, hot-desk, fixed-desk, office, or whatever Syncaroo adds."""

    id: Text = msgspec.field(name="ID")
    name: Text
    status: Status
    type: Text


class Location(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One location; `resources` is left out where there are none to tell of."""

    id: Text = msgspec.field(name="ID")
    name: Text
    status: Status
    resources: tuple[Resource, ...] | msgspec.UnsetType = msgspec.UNSET


def read_location(value: Json, location_id: str) -> Location:
    """A location from strict JSON, addressed as `location_id`.

    Raises:
        BadInput: it has not the guide's shape, or another `ID`.
    """
    try:
        location = msgspec.convert(value, Location)
    except msgspec.ValidationError as error:
        raise BadInput(f"location: {error}") from None
    if location.id != location_id:
        raise BadInput("a location's ID differs from the name under which it was sent")
    _check(location)
    return location


def read_locations(value: Json) -> list[Location]:
    """A map of locations by `ID`, as in the guide.

    Raises:
        BadInput: it is not one.
    """
    if not isinstance(value, dict):
        raise BadInput("the body must be a map of locations by ID")
    return [read_location(body, location_id) for location_id, body in value.items()]


def stored(location: Location) -> str:
    """The text that the store keeps of a location."""
    return dumps(location).decode()


def restored(text: str) -> Location:
    """The way back."""
    return msgspec.json.decode(text, type=Location)


def as_map(locations: Sequence[Location]) -> dict[str, Location]:
    """Locations by `ID`, in the order of their IDs."""
    return {location.id: location for location in sorted(locations, key=lambda one: one.id)}


def _check(location: Location) -> None:
    resources = location.resources or ()
    ids = [resource.id for resource in resources]
    if len(set(ids)) != len(ids):
        raise BadInput("two resources of a location have the same ID")
    if not all([location.id, location.name, *ids, *(resource.type for resource in resources)]):
        raise BadInput("ID, name and type must not be empty")
    for text in (location.id, location.name, *ids):
        check_text(text, "ID or name")
