"""RFC 6902 patches between two JSON values. Pure.

Values count as equal when they are spelled alike in JSON: 35 and 35.0 differ, true and 1 differ.
"""

from __future__ import annotations

from typing import Any

import msgspec

from common.codec import decode, dumps
from schemas.events import PatchOperation
from schemas.messages import Json

FEW = 1000
"""So many operations are told one by one, however long they are."""


def difference(before: Json, after: Json, texts: tuple[str, str]) -> tuple[list[str], list[PatchOperation]]:
    """`changed_fields` and `shortest_patch` of two values, by their canonical texts: only members whose texts differ
    are looked into."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return [], shortest_patch(before, after)
    one, other = (decode(text.encode(), dict[str, msgspec.Raw]) for text in texts)
    changed = {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
    earlier = {name: value for name, value in before.items() if name in changed}
    later = {name: value for name, value in after.items() if name in changed}
    return sorted(changed), _shorter(patch_between(earlier, later), after)


def shortest_patch(before: Json, after: Json) -> list[PatchOperation]:
    """As `patch_between`; when that is longer than the value itself, as when a long list has shifted, the value."""
    return _shorter(patch_between(before, after), after)


def _shorter(patch: list[PatchOperation], after: Json) -> list[PatchOperation]:
    if len(patch) <= FEW:
        return patch
    replaced = [PatchOperation(op="replace", path="", value=after)]
    return min(replaced, patch, key=lambda one: len(dumps(one)))


def patch_between(before: Json, after: Json, path: str = "") -> list[PatchOperation]:
    """The operations that turn `before` into `after`; empty when they are equal."""
    if isinstance(before, dict) and isinstance(after, dict):
        return _members(before, after, path)
    if isinstance(before, list) and isinstance(after, list):
        return _elements(before, after, path)
    return [] if same(before, after) else [PatchOperation(op="replace", path=path, value=after)]


def changed_fields(before: Json, after: Json) -> list[str]:
    """Names of the top-level members that differ, sorted; empty for lists."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return []
    names = before.keys() | after.keys()
    return sorted(name for name in names if not _member_same(before, after, name))


def same(one: Json, other: Json) -> bool:
    """Deep equality that tells 1, 1.0 and true apart."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return repr(one) == repr(other)  # 0.0 and -0.0 are spelled differently
    return bool(one == other)


def _member_same(before: dict[str, Any], after: dict[str, Any], name: str) -> bool:
    return name in before and name in after and same(before[name], after[name])


def _members(before: dict[str, Any], after: dict[str, Any], path: str) -> list[PatchOperation]:
    patch = [PatchOperation(op="remove", path=f"{path}/{_escape(name)}") for name in before if name not in after]
    for name, value in after.items():
        place = f"{path}/{_escape(name)}"
        if name in before:
            patch += patch_between(before[name], value, place)
        else:
            patch.append(PatchOperation(op="add", path=place, value=value))
    return patch


def _elements(before: list[Any], after: list[Any], path: str) -> list[PatchOperation]:
    shared = min(len(before), len(after))
    patch = []
    for index in range(shared):
        patch += patch_between(before[index], after[index], f"{path}/{index}")
    # From the end, so that the indexes of the operations before stay right.
    patch += [PatchOperation(op="remove", path=f"{path}/{index}") for index in reversed(range(shared, len(before)))]
    patch += [PatchOperation(op="add", path=f"{path}/-", value=value) for value in after[shared:]]
    return patch


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
