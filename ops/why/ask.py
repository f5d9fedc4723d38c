"""What `gateway why` asks the admin API: which listing is meant, how it stands, what happened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from common.errors import GatewayError
from common.identity import item_id_of, place_of
from ops.admin import AdminApi, AdminRefused

Json = dict[str, Any]

SUGGESTIONS = 5

_SUBJECT = re.compile(r"([0-9]+)/([^/]+)/(.+)")


class NotFound(GatewayError):
    """Nothing, or more than one thing, is known by that name; the text says what is known instead."""


@dataclass(frozen=True)
class Answers:
    """All that the admin API says of a listing, or of a URL that has not become one; `history` is newest first."""

    connection_id: int
    path: str
    collection: str
    listing: Json | None
    targets: Sequence[Json]
    history: Sequence[Json]
    more: bool
    """Whether there is more history than was asked for."""
    dead_letters: Sequence[Json] = ()
    grant: Json = field(default_factory=dict)
    connection: Json | None = None

    def as_json(self) -> Json:
        """All of it, with names as the API has them."""
        return {
            "connectionId": self.connection_id,
            "path": self.path,
            "collection": self.collection,
            "listing": self.listing,
            "targets": self.targets,
            "history": self.history,
            "more": self.more,
            "deadLetters": self.dead_letters,
            "grant": self.grant,
            "connection": self.connection,
        }


async def ask(admin: AdminApi, name: str, limit: int) -> Answers:
    """Everything about the listing of that name: listingId, URL, path, or connectionId/attributeType/itemId.

    Raises:
        NotFound, AdminRefused.
    """
    listing = await _listing(admin, name)
    if listing is not None:
        connection_id, path, collection = listing["connectionId"], listing["path"], listing["collection"]
        history, more = await admin.history(listing["listingId"], limit)
    else:
        connection_id, path = await _wanted_by(admin, name)
        collection = place_of(f"https://api{path}").scope
        history, more = await admin.attempts(connection_id, path, limit)
    paths = dict.fromkeys((path, collection))  # its own first
    targets = [target for one in paths for target in await _targets(admin, one, connection_id)]
    letters = await admin.dead_letters(connection_id=connection_id)
    return Answers(
        connection_id,
        path,
        collection,
        listing,
        targets,
        history,
        more,
        dead_letters=[letter for letter in letters if _is_about(letter["body"], path, collection)],
        grant=(await admin.status())["grant"],
        connection=await _or_none(admin.connection(connection_id)),
    )


async def _listing(admin: AdminApi, name: str) -> Json | None:
    """The one listing that is meant, with all that is known of it; None when only its URL may be known."""
    if not name.strip("/ "):
        raise NotFound("Which listing? Give its listingId, URL, path, or connectionId/attributeType/itemId.")
    if "/" not in name:
        known = await _or_none(admin.listing(name))
        if known is None:
            raise NotFound(await _unknown(admin, name))
        return known
    found = await admin.listings(**_filters(name))
    if len(found) > 1:
        raise NotFound(f"{name} may be any of these; give one's listingId:\n" + await _choices(admin, found))
    if found:
        return await admin.listing(found[0]["listingId"])
    if _SUBJECT.fullmatch(name):
        raise NotFound(await _unknown(admin, name))
    return None


def _filters(name: str) -> dict[str, Any]:
    if subject := _SUBJECT.fullmatch(name):
        return {"connectionId": subject[1], "attributeType": subject[2], "itemId": subject[3]}
    return {"url": name}


async def _wanted_by(admin: AdminApi, name: str) -> tuple[int, str]:
    """Whose target the URL is that nothing was read from yet, and its path."""
    targets = await _targets(admin, name)
    connections = sorted({target["connectionId"] for target in targets})
    if not connections:
        raise NotFound(await _unknown(admin, name))
    if len(connections) > 1:
        several = ", ".join(map(str, connections))
        raise NotFound(f"{name} is wanted for the connections {several}, and is no listing of any yet")
    return connections[0], place_of(targets[0]["url"]).path


async def _targets(admin: AdminApi, url: str, connection_id: int | None = None) -> list[Json]:
    path = place_of(url if "://" in url else f"https://api/{url}").path
    filters = {"url": url} | ({} if connection_id is None else {"connectionId": connection_id})
    return [target for target in await admin.targets(**filters) if place_of(target["url"]).path == path]


def _is_about(body: Any, path: str, collection: str) -> bool:
    """Whether a parked message is about the listing: its own URL, its collection, or the item in a page of it."""
    if not isinstance(body, dict):
        return False
    source = body.get("source")
    url = source.get("url") if isinstance(source, dict) else body.get("url")
    if not isinstance(url, str):
        return False
    place = place_of(url)
    if body.get("shape") == "list":
        return any(place.item_path(item_id_of(item, place)) == path for item in body["items"])
    return place.path in (path, collection)


async def _unknown(admin: AdminApi, name: str) -> str:
    last = name.partition("?")[0].rstrip("/").rpartition("/")[-1]
    alike = await admin.listings(itemId=last) if last else []
    said = f"No listing is known as {name}."
    if not alike:
        return f"{said} gateway listings shows those that are."
    return f"{said} These end alike:\n" + await _choices(admin, alike)


async def _choices(admin: AdminApi, found: Sequence[Json]) -> str:
    known = [await admin.listing(one["listingId"]) for one in found[:SUGGESTIONS]]
    lines = [f"  {one['listingId']}  {one['connectionId']}  {one['path']}" for one in known]
    if len(found) > SUGGESTIONS:
        lines.append(f"  and {len(found) - SUGGESTIONS} more")
    return "\n".join(lines)


async def _or_none(asked: Any) -> Json | None:
    try:
        found: Json = await asked
    except AdminRefused as error:
        if error.status == 404:
            return None
        raise
    return found
