"""Any value of a model: what hypothesis draws when a test wants whatever our types allow."""

from __future__ import annotations

import types
import typing
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar, Union

import msgspec
from hypothesis import strategies as st

S = TypeVar("S", bound=msgspec.Struct)

NUMBERS = st.integers(-(2**63), 2**63 - 1)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001  # UTC
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    Any: JSON,
    str: st.text(),
    int: NUMBERS,
    bool: st.booleans(),
    datetime: MOMENTS,
    type(None): st.none(),
}


def values_of(model: type[S]) -> st.SearchStrategy[S]:
    """Any value of a struct."""
    members = {field.name: _of(field.type) for field in msgspec.structs.fields(model)}
    return st.builds(model, **members)


def _of(kind: Any) -> st.SearchStrategy[Any]:
    if kind in PLAIN:
        return PLAIN[kind]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return values_of(kind)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return st.uuids().map(str) if _is_uuid(parts[1:]) else _of(parts[0])
    if origin is Literal:
        return st.sampled_from(parts)
    if origin is list:
        return st.lists(_of(parts[0]), max_size=3)
    assert origin in (Union, types.UnionType), kind
    return st.one_of(*map(_of, parts))


def _is_uuid(notes: tuple[Any, ...]) -> bool:
    return any((getattr(note, "extra_json_schema", None) or {}).get("format") == "uuid" for note in notes)
