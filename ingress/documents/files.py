"""All documents of a deployment as files, named as the repository keeps them below `schemas/documents/`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ingress.documents.asyncapi import asyncapi
from ingress.documents.index import index_of
from ingress.documents.openapi import openapi
from ingress.documents.place import Place
from schemas.catalogue import DOCUMENTS, published, rendered


def files(place: Place, folder: Path = DOCUMENTS) -> dict[str, str]:
    """Name → text; schemas of earlier versions are those that the folder keeps."""
    served = published(place.source, folder)
    return {
        **{f"{one.place}.json": rendered(one.schema) for one in served},
        "index.json": rendered(msgspec.to_builtins(index_of(served, place))),
        "asyncapi.json": rendered(asyncapi(place)),
        "openapi.json": rendered(openapi(place)),
    }
