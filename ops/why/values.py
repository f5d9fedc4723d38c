"""What changed from one body to another, as short lines `name  old → new`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.codec import dumps
from common.foreign import harmless
from common.pointer import tokens_of, value_at

NOTHING = "(none)"
SHOWN = 8
_LEAST = 12
_KEPT = 6
"""Characters of what two long texts share that stay before the first that differs."""


def changed_values(change: Mapping[str, Any], width: int) -> list[tuple[str, str]]:
    """Name and `old → new` of each difference of an update, at most `SHOWN` of them, each `width` long in all."""
    lines = [(name, f"{old} → {new}") for name, old, new in differences(change, width, SHOWN)]
    more = len(change.get("patch") or []) - SHOWN
    if more > 0:
        lines.append((f"{'…':<{max(map(len, (name for name, _ in lines)))}}", f"and {more} more; --json shows all"))
    return lines


def differences(change: Mapping[str, Any], width: int, most: int) -> list[tuple[str, str, str]]:
    """Name, old and new of the first `most` differences of an update, cut so that all three fit into `width`.

    The names are padded to one length. `change` has the members `patch` and `previous` of an event.
    """
    patch = (change.get("patch") or [])[:most]
    names = [_name(operation["path"], width // 3) for operation in patch]
    column = max(map(len, names), default=0)
    room = width - column - len("   → ")
    return [
        (f"{name:<{column}}", *shortened(*_values(operation, change.get("previous")), room))
        for name, operation in zip(names, patch, strict=True)
    ]


def _name(pointer: str, longest: int) -> str:
    name = harmless("/".join(tokens_of(pointer))) or "all of it"
    return name if len(name) <= longest else f"…{name[1 - longest :]}"


def _values(operation: Mapping[str, Any], previous: Any) -> tuple[str, str]:
    old = NOTHING if operation["op"] == "add" else _text(value_at(previous, operation["path"]))
    new = NOTHING if operation["op"] == "remove" else _text(operation.get("value"))
    return old, new


def shortened(old: str, new: str, width: int) -> tuple[str, str]:
    """Both texts cut so that they fit into `width` together and still show where they differ."""
    width = max(width, 2 * _LEAST)
    if len(old) + len(new) <= width:
        return old, new
    shared = _shared(old, new)
    if shared > _KEPT + 1:
        cut = shared - _KEPT
        old, new = f"…{old[cut:]}", f"…{new[cut:]}"
    half = width // 2
    room_old = max(half, width - len(new))
    room_new = max(half, width - len(old))
    return _cut(old, room_old), _cut(new, room_new)


def _shared(old: str, new: str) -> int:
    """How many characters both begin with."""
    return next((place for place, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), 0)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _text(value: Any) -> str:
    return harmless(dumps(value).decode())
