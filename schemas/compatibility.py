"""Whether a schema may change under the version that it has: two schemas in, what breaks out. Pure.

Subscribers read what we will write with what they know today, and replay what we have written. For them it breaks
when a member goes or may be missing, when a type or a set of values is another one or allows more, and when a value
goes that they wait for. A member more is fine, they did without; a narrower type or bound, too, they could read more.

Our own processes are not all replaced at once, and queues hold what the former ones wrote. So messages are read both
ways, and only a member more that may be missing is fine; `ourselves` is also whoever sends us a message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

Readers = Literal["subscribers", "ourselves"]
Alternative = Mapping[str, Any]
"""A schema without references and `anyOf`."""
Lines = Iterator[str]

_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_TOLD_ONLY = frozenset(("$schema", "$id", "$defs", "title", "description", "default", "examples", "deprecated"))
_COMPARED = frozenset(("type", "enum", "const", "properties", "required", "items", "anyOf", "additionalProperties"))


def breaking(old: Mapping[str, Any], new: Mapping[str, Any], readers: Readers) -> list[str]:
    """What whoever knows `old` cannot rely on any more under `new`, a line for each; empty: nothing.

    A reference to another document's id is compared by that id: the other document answers for itself.
    """
    return list(dict.fromkeys(_Comparison(old, new, readers).lines(old, new, "")))


@dataclass(frozen=True)
class _Comparison:
    old_root: Mapping[str, Any]
    new_root: Mapping[str, Any]
    readers: Readers

    def lines(self, old: Any, new: Any, at: str) -> Iterator[str]:
        """Differences that break, anywhere below."""
        before, after = _kinds(old, self.old_root), _kinds(new, self.new_root)
        gone, more = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
        if more or (gone and (self.readers == "ourselves" or not before.keys() & after.keys())):
            yield f"{_name(at)}: its type was {_listed(before)} and is {_listed(after)}"
        for kind in sorted(before.keys() & after.keys()):
            if len(before[kind]) == len(after[kind]) == 1:
                yield from self._one(before[kind][0], after[kind][0], at)
            else:
                yield from self._alternatives(kind, before[kind], after[kind], at)

    def _alternatives(self, kind: str, before: Sequence[Alternative], after: Sequence[Alternative], at: str) -> Lines:
        """Of one type there are several: whatever is written now must be what one of those before allowed."""
        fits = [[not list(self._one(old, new, at)) for old in before] for new in after]
        for number, found in enumerate(fits, 1):
            if not any(found):
                yield f"{_name(at)}: the {_nth(number)} of its alternatives of type {kind} is none that there was"
        for number, kept in enumerate(zip(*fits, strict=True), 1):
            if self.readers == "ourselves" and not any(kept):
                yield f"{_name(at)}: the {_nth(number)} of its former alternatives of type {kind} is gone"

    def _one(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> Iterator[str]:
        yield from self._values(old, new, at)
        yield from self._members(old, new, at)
        yield from self._new_members(old, new, at)
        yield from self._unnamed_members(old, new, at)
        yield from self._items(old.get("items", {}), new.get("items", {}), at)
        yield from self._constraints(old, new, at)

    def _values(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> Iterator[str]:
        before, after = _values_of(old), _values_of(new)
        if before is None:
            if after is not None and self.readers == "ourselves":
                yield f"{_name(at)}: only some values are allowed now"
        elif after is None:
            yield f"{_name(at)}: any value is allowed now"
        else:
            yield from (f"{_name(at)}: the value {one} is gone" for one in before if one not in after)
            yield from (f"{_name(at)}: the value {one} is new" for one in after if one not in before)

    def _members(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        needed, needs = set(old.get("required", ())), set(new.get("required", ()))
        for name, schema in before.items():
            place = f"{at}.{name}" if at else name
            if name not in after:
                yield f"{place}: the member is gone"
                continue
            if name in needed - needs:
                yield f"{place}: the member was required and may be missing now"
            if name in needs - needed and self.readers == "ourselves":
                yield f"{place}: the member could be missing and is required now"
            yield from self.lines(schema, after[name], place)
            yield from self._default(schema, after[name], place)

    def _new_members(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> Iterator[str]:
        for name in sorted(new.get("properties", {}).keys() - old.get("properties", {}).keys()):
            place = f"{at}.{name}" if at else name
            if old.get("additionalProperties") is False:
                yield f"{place}: the member is new, and readers of this version refuse what they do not know"
            elif name in new.get("required", ()) and self.readers == "ourselves":
                yield f"{place}: the member is new and required; give it a default"

    def _unnamed_members(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> Iterator[str]:
        """`additionalProperties`: those of a map, or whether others than the named ones are refused."""
        before, after = old.get("additionalProperties", {}), new.get("additionalProperties", {})
        if before is False and after is not False:
            yield f"{_name(at)}: members that it does not name were refused and are allowed"
        elif before is not False and after is False:
            if self.readers == "ourselves":
                yield f"{_name(at)}: members that it does not name were allowed and are refused"
        elif before or after:
            yield from self.lines(before, after, f"{at}[]")

    def _default(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> Iterator[str]:
        """Whoever leaves a member out must be understood alike by everybody who reads it."""
        old, new = _schema(old), _schema(new)
        before, after = old.get("default"), new.get("default")
        if self.readers == "ourselves" and "default" in old and "default" in new and before != after:
            yield f"{at}: its default was {_text(before)} and is {_text(after)}"

    def _items(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> Iterator[str]:
        if old or new:
            yield from self.lines(old, new, f"{at}[]")

    def _constraints(self, old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> Iterator[str]:
        for keyword in sorted((old.keys() | new.keys()) - _COMPARED - _TOLD_ONLY):
            before, after = old.get(keyword), new.get(keyword)
            if before == after or (self.readers == "subscribers" and _narrower(keyword, before, after)):
                continue
            yield f"{_name(at)}: {keyword} was {_shown(before)} and is {_shown(after)}"


def _narrower(keyword: str, before: Any, after: Any) -> bool:
    if before is None:
        return True
    if after is None:
        return False
    return (keyword in _LOWER and after > before) or (keyword in _UPPER and after < before)


def _kinds(schema: Any, root: Mapping[str, Any]) -> dict[str, list[Alternative]]:
    """The alternatives of a schema by their JSON type; `anything` where it does not say."""
    found: dict[str, list[Alternative]] = {}
    for kind, one in _flat(_resolved(schema, root), root):
        found.setdefault(kind, []).append(one)
    return found


def _flat(schema: Alternative, root: Mapping[str, Any]) -> Iterator[tuple[str, Alternative]]:
    values = _values_of(schema)
    if "anyOf" in schema:
        rest = {name: value for name, value in schema.items() if name != "anyOf"}
        for inner in schema["anyOf"]:
            yield from _flat(_both(_resolved(inner, root), rest), root)
    elif "type" not in schema and values is not None:
        yield from ((kind, {**schema, "type": kind}) for kind in dict.fromkeys(map(_type_of_text, values)))
    else:
        yield str(schema.get("type", schema.get("$ref", "anything"))), schema


def _both(one: Alternative, rest: Alternative) -> Alternative:
    """What holds beside a reference or alternatives holds for each of them: compared as a whole, not looked into."""
    more = {name: value for name, value in rest.items() if name not in _TOLD_ONLY}
    return {**one, "allOf": [*one.get("allOf", ()), more]} if more else one


def _type_of_text(value: str) -> str:
    """The JSON type of a value that is written so."""
    first = {'"': "string", "{": "object", "[": "array", "t": "boolean", "f": "boolean", "n": "null"}
    return first.get(value[0], "number" if set(".eE") & set(value) else "integer")


def _resolved(schema: Any, root: Mapping[str, Any]) -> Alternative:
    found = _schema(schema)
    while str(found.get("$ref", "")).startswith("#/$defs/"):
        rest = {name: value for name, value in found.items() if name != "$ref"}
        found = _both(_schema(root["$defs"][found["$ref"].removeprefix("#/$defs/")]), rest)
    return found


def _schema(value: Any) -> Alternative:
    """`true` and `false` are schemas, too: of anything, and of nothing."""
    return ({} if value else {"not": {}}) if isinstance(value, bool) else value


def _values_of(schema: Mapping[str, Any]) -> list[str] | None:
    if "const" in schema:
        return [_text(schema["const"])]
    return [_text(one) for one in schema["enum"]] if "enum" in schema else None


def _shown(value: Any) -> str:
    return "none" if value is None else _text(value)


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _listed(kinds: Mapping[str, Any]) -> str:
    return " or ".join(sorted(kinds))


def _nth(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")


def _name(at: str) -> str:
    return at or "the whole"
