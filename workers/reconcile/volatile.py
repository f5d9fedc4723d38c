"""Members of items that change all the time: those that are ignored, and those that perhaps should be. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from common.codec import canonical
from common.identity import NOUNS, plural
from schemas.messages import Json

IN_A_ROW = 10
"""So many versions that one member alone makes are an alarm."""


def ignored_for(fields: Iterable[str], attribute_type: str) -> frozenset[str]:
    """The members that `IGNORED_FIELDS` means for items of this kind: `name`, or `attributeType.name` of this one."""
    names = set()
    for field in fields:
        kind, dot, name = field.partition(".")
        if not dot or plural(kind) not in NOUNS:
            names.add(field)
        elif plural(kind) == attribute_type:
            names.add(name)
    return frozenset(names)


def same_but_for(ignored: Collection[str], before: Json, after: Json) -> bool:
    """Whether two items differ in ignored members at most."""
    if not ignored or not isinstance(before, dict) or not isinstance(after, dict):
        return False
    return canonical(_without(before, ignored)) == canonical(_without(after, ignored))


def may_be_volatile(version: int) -> bool:
    """Whether to look for a volatile member now: rarely, as most have none."""
    return version % IN_A_ROW == 0


def volatile_member(changes: Sequence[Collection[str]]) -> str | None:
    """The member that alone made all of the last versions, by the members that each of them changed."""
    names = {name for change in changes for name in change}
    alone = len(changes) >= IN_A_ROW and len(names) == 1 and all(changes)
    return names.pop() if alone else None


def _without(item: dict[str, Json], ignored: Collection[str]) -> dict[str, Json]:
    return {name: value for name, value in item.items() if name not in ignored}
