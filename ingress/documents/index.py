"""Which JSON Schemas there are, for whoever looks around."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ingress.documents.place import Place
from schemas.catalogue import Published


class SchemaEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A schema: what it is of, its `id`, and where it is served."""

    name: str
    version: int
    description: str
    id: str
    url: str


class SchemaIndex(msgspec.Struct, frozen=True):
    """All schemas: of events' data, of whole events (`cloudevents/…`), of messages of our own (`messages/…`)."""

    items: list[SchemaEntry]


def index_of(published: Iterable[Published], place: Place) -> SchemaIndex:
    """The index of a deployment."""
    return SchemaIndex([_entry(one, place) for one in published])


def _entry(one: Published, place: Place) -> SchemaEntry:
    return SchemaEntry(
        name=one.name,
        version=int(one.place.rpartition("/")[2]),
        description=one.schema.get("description", ""),
        id=one.schema["$id"],
        url=f"{place.site_uri}/schemas/{one.place}",
    )
