"""The one JSON codec: strict in (what strangers send), compact and canonical out."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from common.errors import BadJson
from schemas.messages import Json

MAX_DEPTH = 32

T = TypeVar("T")

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_encoder = msgspec.json.Encoder()
_sorted = msgspec.json.Encoder(order="sorted")


def dumps(value: Any) -> bytes:
    """Compact JSON; members as they come."""
    return _encoder.encode(value)


def canonical(value: Any) -> str:
    """JSON with sorted members and no blanks: equal values give equal text."""
    return canonical_bytes(value).decode()


def canonical_bytes(value: Any) -> bytes:
    """As `canonical`, in UTF-8."""
    return _sorted.encode(value)


def pretty(value: Any) -> str:
    """JSON for people, indented; members as they come."""
    return msgspec.json.format(_encoder.encode(value), indent=2).decode()


def loads(raw: bytes) -> Json:
    """Strict JSON: refuses duplicate members, NaN, numbers out of range, depth over 32, lone surrogates.

    Raises:
        BadJson: with what is wrong, never with the input.
    """
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson(_without_input(error)) from None
    # Only now: on text with a string that never ends, the search for strings would take the square of its length.
    skeleton = _STRING.sub(b"", raw) if b"\\" in raw else b"".join(raw.split(b'"')[::2])
    _refuse_depth(skeleton)
    # Outside strings every colon belongs to one member, so a surplus of colons means that a member came twice.
    if skeleton.count(b":") != (_count_members(value) if isinstance(value, dict | list) else 0):
        raise BadJson("a member occurs twice")
    return value


def convert(value: Json, kind: type[T]) -> T:
    """A value of a known type, out of what `loads` read.

    Raises:
        BadJson: it is not one.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise BadJson(_without_input(error)) from None


def decode(raw: bytes, kind: type[T]) -> T:
    """A value of a known type, as another process of ours wrote it.

    Raises:
        BadJson: it is not one.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson(_without_input(error)) from None


def _refuse_depth(skeleton: bytes) -> None:
    brackets = _BRACKET.findall(skeleton)
    if len(brackets) <= 2 * MAX_DEPTH:
        return
    depth = 0
    for byte in brackets:
        depth += 1 if byte in b"[{" else -1
        if depth > MAX_DEPTH:
            raise BadJson(f"nested deeper than {MAX_DEPTH}")


def _count_members(value: Json) -> int:
    inner = value.values() if type(value) is dict else value
    count = len(value) if type(value) is dict else 0
    for one in inner:
        if type(one) is dict or type(one) is list:
            count += _count_members(one)
    return count


def _without_input(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return str(error)
