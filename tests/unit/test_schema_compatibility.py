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


def changed(before: Any, after: Any, *, both: str = "", ourselves: str = "") -> tuple[Any, Any, list[str], list[str]]:
    """Before, after, and the lines that it breaks with: for both kinds of readers, or only for ourselves."""
    return before, after, both.splitlines(), (ourselves or both).splitlines()


CLOSED = {"additionalProperties": False}
CHANGES = {
    "nothing": changed(one(TEXT), one(TEXT)),
    "words": changed(one(TEXT), {**one({**TEXT, "description": "d"}), "title": "t", "description": "e"}),
    "a member goes": changed(object_of("a", a=TEXT, b=TEXT), one(TEXT), both="b: the member is gone"),
    "a required member more": changed(
        one(TEXT), object_of("a b", a=TEXT, b=TEXT), ourselves="b: the member is new and required; give it a default"
    ),
    "a member more that may be missing": changed(one(TEXT), object_of("a", a=TEXT, b=TEXT)),
    "a member more where unknown ones are refused": changed(
        one(TEXT) | CLOSED,
        object_of("a", a=TEXT, b=TEXT) | CLOSED,
        both="b: the member is new, and readers of this version refuse what they do not know",
    ),
    "required may be missing": changed(
        one(TEXT), object_of("", a=TEXT), both="a: the member was required and may be missing now"
    ),
    "what may be missing is required": changed(
        object_of("", a=TEXT), one(TEXT), ourselves="a: the member could be missing and is required now"
    ),
    "another type": changed(one(TEXT), one(NUMBER), both="a: its type was string and is integer"),
    "a type more": changed(one(TEXT), one(nullable(TEXT)), both="a: its type was string and is null or string"),
    "a type fewer": changed(one(nullable(TEXT)), one(TEXT), ourselves="a: its type was null or string and is string"),
    "any type": changed(one(TEXT), one({}), both="a: its type was string and is anything"),
    "a value more": changed(one({"enum": ["x"]}), one({"enum": ["x", "y"]}), both='a: the value "y" is new'),
    "a value fewer": changed(one({"enum": ["x", "y"]}), one({"const": "x"}), both='a: the value "y" is gone'),
    "one is not true": changed(one({"const": 1}), one({"const": True}), both="a: its type was integer and is boolean"),
    "any value": changed(one({"enum": ["x"]}), one(TEXT), both="a: any value is allowed now"),
    "only some values": changed(one(TEXT), one({"enum": ["x"]}), ourselves="a: only some values are allowed now"),
    "another version": changed(
        one({"const": 1}), one({"const": 2}), both="a: the value 1 is gone\na: the value 2 is new"
    ),
    "a format more": changed(one(TEXT), one({**TEXT, "format": "uuid"}), ourselves='a: format was none and is "uuid"'),
    "a format fewer": changed(one({**TEXT, "format": "uuid"}), one(TEXT), both='a: format was "uuid" and is none'),
    "a bound is lowered": changed(
        one({**NUMBER, "minimum": 1}), one({**NUMBER, "minimum": 0}), both="a: minimum was 1 and is 0"
    ),
    "a bound is raised": changed(
        one({**NUMBER, "minimum": 1}), one({**NUMBER, "minimum": 2}), ourselves="a: minimum was 1 and is 2"
    ),
    "below, in a list and behind a reference": changed(
        referring(one(TEXT)), referring(one(NUMBER)), both="a[].a: its type was string and is integer"
    ),
    "in a map and behind a reference": changed(
        {"type": "object", "additionalProperties": {"$ref": "#/$defs/Inner"}, "$defs": {"Inner": one(TEXT)}},
        {"type": "object", "additionalProperties": {"$ref": "#/$defs/Inner"}, "$defs": {"Inner": one(NUMBER)}},
        both="[].a: its type was string and is integer",
    ),
    "in a map": changed(
        one({"type": "object", "additionalProperties": TEXT}),
        one({"type": "object", "additionalProperties": NUMBER}),
        both="a[]: its type was string and is integer",
    ),
    "unknown members are refused": changed(
        one(TEXT), one(TEXT) | CLOSED, ourselves="the whole: members that it does not name were allowed and are refused"
    ),
    "unknown members are allowed": changed(
        one(TEXT) | CLOSED, one(TEXT), both="the whole: members that it does not name were refused and are allowed"
    ),
    "another default": changed(
        object_of("", a={**NUMBER, "default": 1}),
        object_of("", a={**NUMBER, "default": 2}),
        ourselves="a: its default was 1 and is 2",
    ),
    "another document": changed(
        one({"$ref": "https://x/1"}),
        one({"$ref": "https://x/2"}),
        both="a: its type was https://x/1 and is https://x/2",
    ),
    "what another document says": changed(
        {**one({"$ref": "https://x/1"}), "$defs": {"x": {"$id": "https://x/1", **TEXT}}},
        {**one({"$ref": "https://x/1"}), "$defs": {"x": {"$id": "https://x/1", **NUMBER}}},
    ),
    "one of two of a type changes": changed(
        one({"anyOf": [one(TEXT), one(NUMBER)]}),
        one({"anyOf": [object_of("a b", a=NUMBER, b=TEXT), object_of("", a=TEXT)]}),
        both="a: the second of its alternatives of type object is none that there was",
        ourselves="a: the first of its alternatives of type object is none that there was\n"
        "a: the second of its alternatives of type object is none that there was\n"
        "a: the first of its former alternatives of type object is gone\n"
        "a: the second of its former alternatives of type object is gone",
    ),
    "two of a type change places": changed(
        one({"anyOf": [one(TEXT), one(NUMBER)]}), one({"anyOf": [one(NUMBER), one(TEXT)]})
    ),
    "of two of a type one goes": changed(
        one({"anyOf": [one(TEXT), one(NUMBER)]}),
        one(one(NUMBER)),
        ourselves="a: the first of its former alternatives of type object is gone",
    ),
    "another of a type": changed(
        one(one(NUMBER)),
        one({"anyOf": [one(TEXT), one(NUMBER)]}),
        both="a: the first of its alternatives of type object is none that there was",
    ),
    "what holds beside alternatives": changed(
        one({"anyOf": [TEXT, NULL], "not": {"const": "x"}}),
        one({"anyOf": [TEXT, NULL], "not": {"const": "y"}}),
        both='a: allOf was [{"not":{"const":"x"}}] and is [{"not":{"const":"y"}}]',
    ),
    "what holds beside a reference": changed(
        {**one({"$ref": "#/$defs/Inner", "minProperties": 2}), "$defs": {"Inner": one(TEXT)}},
        {**one({"$ref": "#/$defs/Inner"}), "$defs": {"Inner": one(TEXT)}},
        both='a: allOf was [{"minProperties":2}] and is none',
    ),
    "values of one type without its name": changed(one({"enum": [1, 2]}), one({"enum": [1, 2]})),
    "nothing is allowed and something is": changed(
        one(False), one(TEXT), both="a: its type was anything and is string"
    ),
    "anything, in another word": changed(one(True), one({})),
    "anything becomes nothing": changed(one(True), one(False), ourselves="a: not was none and is {}"),
    "a default of anything": changed(object_of("", a=True), object_of("", a={"default": 1})),
    "the whole": changed(TEXT, NUMBER, both="the whole: its type was string and is integer"),
}


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
