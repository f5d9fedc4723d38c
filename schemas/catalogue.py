"""Every schema that we publish, by its place below `/schemas/`: generated from the models, kept in `documents/`.

`listing.changed/1` is the data of an event, `cloudevents/listing.changed/1` the whole message around it, and
`messages/PageFetched/1` a message between our own processes. Schemas of versions that no model makes any more stay in
`documents/`, because events of theirs stay in the log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from schemas.compatibility import Readers
from schemas.events import EVENT_TYPES, CloudEvent, EventData, dataschema_of
from schemas.json_schema import Schema, document
from schemas.messages import REGISTRY, Message

DOCUMENTS = Path(__file__).parent / "documents"
EXAMPLE_SITE = "https://yourapp.com"
"""Whose documents those in the repository are."""


@dataclass(frozen=True)
class Published:
    """A schema, its place below `/schemas/`, and who reads what it describes."""

    place: str
    readers: Readers
    schema: Schema
    current: bool = True
    """Whether a model makes it today; else it is what one made earlier."""

    @property
    def name(self) -> str:
        """The place without the version."""
        return self.place.rpartition("/")[0]


def catalogue(source: str) -> list[Published]:
    """All schemas that the models make, with ids below `source` (`EVENT_SOURCE`)."""
    base = f"{source.rstrip('/')}/schemas/"
    data = [_data(kind, source) for kind in EVENT_TYPES.values()]
    events = [_event(kind, source) for kind in EVENT_TYPES.values()]
    messages = [
        Published(place := f"messages/{name}/{version_of(kind)}", "ourselves", document(kind, base + place))
        for name, kind in REGISTRY.items()
    ]
    return [*data, *events, *messages]


def version_of(message: type[Message]) -> int:
    """A message's schema version: its one value of `v`."""
    (version,) = [field.default for field in msgspec.structs.fields(message) if field.name == "v"]
    assert isinstance(version, int)
    return version


def envelope(kind: type[EventData], source: str) -> Schema:
    """The CloudEvent around this type's data, whose schema `data` refers to by its id."""
    identity = f"{source.rstrip('/')}/schemas/cloudevents/{kind.TYPE}/{kind.SCHEMA_VERSION}"
    schema = document(CloudEvent, identity)
    members = schema["properties"]
    members["type"] = {"const": kind.TYPE}
    members["dataschema"] = {"const": dataschema_of(source, kind)}
    members["data"] = {"$ref": dataschema_of(source, kind)}
    told = {"title": f"{kind.__name__}Event", "description": f"CloudEvents 1.0 in JSON. {_summary(kind)}"}
    return schema | told | {"required": list(members)}


def _data(kind: type[EventData], source: str) -> Published:
    schema = document(kind, dataschema_of(source, kind))
    return Published(f"{kind.TYPE}/{kind.SCHEMA_VERSION}", "subscribers", schema)


def _event(kind: type[EventData], source: str) -> Published:
    schema = envelope(kind, source) | {"$defs": {kind.TYPE: _data(kind, source).schema}}
    return Published(f"cloudevents/{kind.TYPE}/{kind.SCHEMA_VERSION}", "subscribers", schema)


def _summary(kind: type[EventData]) -> str:
    return str(_data(kind, EXAMPLE_SITE).schema["description"])


def published(source: str, folder: Path = DOCUMENTS) -> list[Published]:
    """All that is served: what the models make, and what they made earlier, as the folder keeps it."""
    return [*catalogue(source), *earlier(source, folder)]


def earlier(source: str, folder: Path = DOCUMENTS) -> list[Published]:
    """Schemas that the folder keeps and no model makes any more, with ids below `source`."""
    made = {one.place for one in catalogue(EXAMPLE_SITE)}
    kept = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.json")}
    return [
        Published(place, "ourselves" if place.startswith("messages/") else "subscribers", _read(path, source), False)
        for place, path in sorted(kept.items())
        if place not in made and is_place(place)
    ]


def is_place(text: str) -> bool:
    """Whether a schema may have this place: a name and a version, below `cloudevents/` or `messages/` or not."""
    return re.fullmatch(r"((cloudevents|messages)/)?[\w.-]+/\d+", text) is not None


def _read(path: Path, source: str) -> Schema:
    text = path.read_text().replace(f"{EXAMPLE_SITE}/schemas/", f"{source.rstrip('/')}/schemas/")
    schema: Schema = msgspec.json.decode(text)
    return schema


def rendered(document_: object) -> str:
    """A document as text: two spaces, a newline at its end, members in their order (it is the order to read in)."""
    return msgspec.json.format(msgspec.json.encode(document_), indent=2).decode() + "\n"
