"""schemas.compatibility: what may change under a version, for subscribers and between our own processes."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.compatibility import Readers, breaking

TEXT = {"type": "string"}
NUMBER = {"type": "integer"}
NULL = {"type": "null"}


def object_of(required: str = "", /, **members: Any) -> dict[str, Any]:
    return {"type": "object", "properties": members, "required": required.split()}


def one(member: Any) -> dict[str, Any]:
    """An object with one required member `a`."""
    return object_of("a", a=member)


def nullable(schema: Any) -> dict[str, Any]:
    return {"anyOf": [schema, NULL]}


def referring(inner: Any) -> dict[str, Any]:
    return {**one({"type": "array", "items": {"$ref": "#/$defs/Inner"}}), "$defs": {"Inner": inner}}


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str], list[str]]] = {
    # what: before, after, what breaks for subscribers, what breaks for ourselves
    "nothing": (one(TEXT), one(TEXT), [], []),
    "words": (one(TEXT), {**one({**TEXT, "description": "d"}), "title": "t", "description": "e"}, [], []),
    "a member goes": (object_of("a", a=TEXT, b=TEXT), one(TEXT), *[["b: the member is gone"]] * 2),
    "a required member more": (
        one(TEXT), object_of("a b", a=TEXT, b=TEXT), [], ["b: the member is new and required; give it a default"],
    ),
    "a member more that may be missing": (one(TEXT), object_of("a", a=TEXT, b=TEXT), [], []),
    "required may be missing": (
        one(TEXT), object_of("", a=TEXT), *[["a: the member was required and may be missing now"]] * 2,
    ),
    "what may be missing is required": (
        object_of("", a=TEXT), one(TEXT), [], ["a: the member could be missing and is required now"],
    ),
    "another type": (one(TEXT), one(NUMBER), *[["a: its type was string and is integer"]] * 2),
    "a type more": (one(TEXT), one(nullable(TEXT)), *[["a: its type was string and is null or string"]] * 2),
    "a type fewer": (one(nullable(TEXT)), one(TEXT), [], ["a: its type was null or string and is string"]),
    "any type": (one(TEXT), one({}), *[["a: its type was string and is anything"]] * 2),
    "a value more": (one({"enum": ["x"]}), one({"enum": ["x", "y"]}), *[['a: the value "y" is new']] * 2),
    "a value fewer": (one({"enum": ["x", "y"]}), one({"const": "x"}), *[['a: the value "y" is gone']] * 2),
    "one is not true": (
        one({"const": 1}), one({"const": True}), *[["a: its type was integer and is boolean"]] * 2,
    ),
    "any value": (one({"enum": ["x"]}), one(TEXT), *[["a: any value is allowed now"]] * 2),
    "only some values": (one(TEXT), one({"enum": ["x"]}), [], ["a: only some values are allowed now"]),
    "another version": (
        one({"const": 1}), one({"const": 2}), *[["a: the value 1 is gone", "a: the value 2 is new"]] * 2,
    ),
    "a format more": (
        one(TEXT), one({**TEXT, "format": "uuid"}), [], ['a: format was none and is "uuid"'],
    ),
    "a format fewer": (one({**TEXT, "format": "uuid"}), one(TEXT), *[['a: format was "uuid" and is none']] * 2),
    "a bound is lowered": (
        one({**NUMBER, "minimum": 1}), one({**NUMBER, "minimum": 0}), *[["a: minimum was 1 and is 0"]] * 2,
    ),
    "a bound is raised": (
        one({**NUMBER, "minimum": 1}), one({**NUMBER, "minimum": 2}), [], ["a: minimum was 1 and is 2"],
    ),
    "below, in a list and behind a reference": (
        referring(one(TEXT)), referring(one(NUMBER)), *[["a[].a: its type was string and is integer"]] * 2,
    ),
    "in a map": (
        one({"type": "object", "additionalProperties": TEXT}), one({"type": "object", "additionalProperties": NUMBER}),
        *[["a[]: its type was string and is integer"]] * 2,
    ),
    "unknown members are refused": (
        one(TEXT), {**one(TEXT), "additionalProperties": False},
        *[["[]: whether there may be any has changed"]] * 2,
    ),
    "a member more where unknown ones are refused": (
        one(TEXT) | {"additionalProperties": False}, object_of("a", a=TEXT, b=TEXT) | {"additionalProperties": False},
        *[["b: the member is new, and readers of this version refuse what they do not know"]] * 2,
    ),
    "another default": (
        object_of("", a={**NUMBER, "default": 1}), object_of("", a={**NUMBER, "default": 2}),
        [], ["a: its default was 1 and is 2"],
    ),
    "another document": (
        one({"$ref": "https://x/1"}), one({"$ref": "https://x/2"}),
        *[["a: its type was https://x/1 and is https://x/2"]] * 2,
    ),
    "what another document says": (
        {**one({"$ref": "https://x/1"}), "$defs": {"x": {"$id": "https://x/1", **TEXT}}},
        {**one({"$ref": "https://x/1"}), "$defs": {"x": {"$id": "https://x/1", **NUMBER}}},
        [], [],
    ),
    "the whole": (TEXT, NUMBER, *[["the whole: its type was string and is integer"]] * 2),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("readers", ["subscribers", "ourselves"])
def test_what_breaks(what: str, readers: Readers) -> None:
    before, after, subscribers, ourselves = CHANGES[what]
    assert breaking(before, after, readers) == (subscribers if readers == "subscribers" else ourselves)


def test_a_rule_between_members_may_come_but_not_go() -> None:
    rule = {"allOf": [{"if": {"required": ["a"]}, "then": {}}]}

    assert breaking(one(TEXT), one(TEXT) | rule, "subscribers") == []
    assert len(breaking(one(TEXT) | rule, one(TEXT), "subscribers")) == 1
    assert len(breaking(one(TEXT), one(TEXT) | rule, "ourselves")) == 1
