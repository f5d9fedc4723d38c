"""The one JSON codec: strict in (what strangers send), compact and canonical out."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from common.errors import BadJson
from schemas.messages import Json

MAX_DEPTH = 32

T = TypeVar("T")

_OTHERS = bytes(set(range(256)) - set(b'"[]{}'))
_SQUARE = bytes.maketrans(b"{}", b"[]")
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
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:  # of fewer none can be that deep
        _refuse_depth(raw)
    # Written again, the value has every colon that was read, but for those of members whose name came again.
    if _count_colons(raw) != dumps(value).count(b":"):
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


def _refuse_depth(raw: bytes) -> None:
    brackets, depth = _brackets(raw), 0
    while brackets and depth <= MAX_DEPTH:
        brackets = brackets.replace(b"[]", b"")  # the innermost ones, and no others: one level
        depth += 1
    if depth > MAX_DEPTH:
        raise BadJson(f"nested deeper than {MAX_DEPTH}")


def _brackets(raw: bytes) -> bytes:
    """All brackets of a JSON text outside its strings, as square ones."""
    if b"\\" in raw:
        raw = raw.replace(rb"\\", b"").replace(rb"\"", b"")
    # Between two quotes without a bracket there is nothing to keep, whether a string begins or ends at the first.
    kept = raw.translate(_SQUARE, _OTHERS).replace(b'""', b"")
    return b"".join(kept.split(b'"')[::2])


def _count_colons(raw: bytes) -> int:
    """Of a JSON text, also of those that are escaped."""
    count = raw.count(b":")
    if b"\\" in raw:
        plain = raw.replace(rb"\\", b"")  # what is left of the backslashes belongs to what follows
        count += plain.count(rb"\u003a") + plain.count(rb"\u003A")
    return count


def _without_input(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return str(error)
