"""All documents of a deployment as files, named as the repository keeps them below `schemas/documents/`."""

from __future__ import annotations

import msgspec

from ingress.documents.asyncapi import asyncapi
from ingress.documents.index import index_of
from ingress.documents.openapi import openapi
from ingress.documents.place import Place
from schemas.catalogue import catalogue, rendered


def files(place: Place) -> dict[str, str]:
    """Name → text."""
    published = catalogue(place.source)
    return {
        **{f"{one.place}.json": rendered(one.schema) for one in published},
        "index.json": rendered(msgspec.to_builtins(index_of(published, place))),
        "asyncapi.json": rendered(asyncapi(place)),
        "openapi.json": rendered(openapi(place)),
    }
