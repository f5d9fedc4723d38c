"""JSON pointers (RFC 6901), as the patches of events have them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def tokens_of(pointer: str) -> Sequence[str]:
    """The names and places on the way; none for all of a value."""
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def value_at(value: Any, pointer: str) -> Any:
    """What a pointer leads to; None when there is nothing."""
    for token in tokens_of(pointer):
        try:
            value = value[int(token)] if isinstance(value, list) else value[token]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    return value
