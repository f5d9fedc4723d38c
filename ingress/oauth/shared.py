"""What the consent page shows of a user's listings: enough to recognise them, however many there are. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingress.inventory import Location, Resource

SHOWN_LOCATIONS = 50
SHOWN_RESOURCES = 20


@dataclass(frozen=True)
class SharedLocation:
    """A location and the first of its resources; `more`: how many are not shown."""

    name: str
    status: str
    resources: tuple[Resource, ...]
    more: int


@dataclass(frozen=True)
class Shared:
    """The first locations; `more`: how many are not shown; `count`: the number of all, in words, or nothing of none.

    What is deleted counts nowhere.
    """

    locations: tuple[SharedLocation, ...]
    more: int
    count: str


def shared_of(locations: Sequence[Location]) -> Shared:
    """What is shown of these; those that are deleted come last."""
    ordered = sorted(locations, key=lambda one: one.status == "deleted")
    live = [one for one in locations if one.status != "deleted"]
    rooms = [room for one in live for room in one.resources or () if room.status != "deleted"]
    return Shared(
        tuple(map(_shown, ordered[:SHOWN_LOCATIONS])),
        len(live[SHOWN_LOCATIONS:]),
        f"{_counted(len(live), 'location')} with {_counted(len(rooms), 'resource')}" if live else "",
    )


def _shown(location: Location) -> SharedLocation:
    resources = location.resources or ()
    return SharedLocation(location.name, location.status, resources[:SHOWN_RESOURCES], len(resources[SHOWN_RESOURCES:]))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
