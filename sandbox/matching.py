"""Matches a platform's locations and resources with the world's, as a person would in Syncaroo's onboarding.

Pure: same name first, then in order; what the platform calls deleted is left out, and so is whatever has no partner.
"""

from sandbox.invent import JsonObject
from sandbox.world import Node


def match(ours: list[Node], theirs: list[JsonObject]) -> dict[str, str]:
    """Our ids to theirs."""
    free = [item for item in theirs if item.get("status") != "deleted"]
    matched: dict[str, str] = {}
    for by_name in (True, False):
        for node in ours:
            found = None if node.ident in matched else _partner(node, free, by_name)
            if found is not None:
                free.remove(found)
                matched[node.ident] = str(found["ID"])
    return matched


def match_all(ours: list[Node], theirs: dict[str, JsonObject]) -> tuple[dict[str, str], dict[str, str]]:
    """The matched locations, and the matched resources of those."""
    locations = match(ours, list(theirs.values()))
    resources: dict[str, str] = {}
    for node in ours:
        if node.ident in locations:
            rooms = theirs[locations[node.ident]].get("resources") or []
            resources |= match(list(node.children.values()), rooms)
    return locations, resources


def _partner(node: Node, free: list[JsonObject], by_name: bool) -> JsonObject | None:
    name = node.data.get("Name", node.data.get("name"))
    return next((item for item in free if not by_name or item.get("name") == name), None)
