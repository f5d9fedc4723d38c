"""JSON Schema 2020-12 of the models: types in, what a reader may rely on out. Pure.

What types cannot say (`FACTS`) and what every moment of ours looks like is added to what msgspec derives.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import inspect as types

from schemas.events import ListingChanged, ListingSnapshot, PatchOperation

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DEFS = "#/$defs/{name}"
_FIRST = ("$schema", "$id", "$ref", "title", "description", "type", "const", "enum", "format")
"""What a person reads first."""


def _when(member: str, value: Any, then: Schema, otherwise: Schema | None = None) -> Schema:
    condition = {"properties": {member: {"const": value}}, "required": [member]}
    return {"if": condition, "then": then} | ({} if otherwise is None else {"else": otherwise})


_NO_DIFFERENCE: Schema = {"changedFields": {"maxItems": 0}, "patch": {"maxItems": 0}}

FACTS: dict[Any, Sequence[Schema]] = {
    ListingChanged: (
        _when("change", "created", {"properties": {"previous": {"const": None}, **_NO_DIFFERENCE}}),
        _when("change", "updated", {"properties": {"patch": {"minItems": 1}}}),
        _when("change", "deleted", {"properties": {"current": {"const": None}, **_NO_DIFFERENCE}}),
    ),
    ListingSnapshot: (_when("deleted", True, {"properties": {"current": {"const": None}}}),),
    PatchOperation: (_when("op", "remove", {"not": {"required": ["value"]}}, {"required": ["value"]}),),
}
"""What holds between the members of a model."""


def components(models: Sequence[Any], reference: str = DEFS) -> tuple[list[Schema], dict[str, Schema]]:
    """A schema for each model, and the named ones that they refer to by `reference` (with `{name}`)."""
    structs = {one.cls: one for model in models for one in _structs(types.type_info(model))}
    roots, named = msgspec.json.schema_components([*models, *structs], ref_template=reference)
    places = dict(zip((root["$ref"] for root in roots[len(models) :]), structs.values(), strict=True))
    finished = {name: _finished(schema, places[reference.format(name=name)]) for name, schema in named.items()}
    return [_tidy(root) for root in roots[: len(models)]], finished


def document(model: Any, identity: str) -> Schema:
    """A schema that stands alone under `identity`, its `$id`."""
    (root,), named = components([model])
    own = named.pop(root["$ref"].rpartition("/")[2])
    return {"$schema": DIALECT, "$id": identity, **own, **({"$defs": named} if named else {})}


def _finished(schema: Schema, struct: types.StructType) -> Schema:
    schema = _tidy(schema)
    for field in struct.fields:
        if _is_moment(field.type):
            _mark_moment(schema["properties"][field.encode_name])
    if "description" in schema:
        schema["description"] = _on_the_wire(schema["description"], struct)
    facts = FACTS.get(struct.cls)
    return schema | ({"allOf": [dict(fact) for fact in facts]} if facts else {})


def _tidy(value: Any) -> Any:
    """One value is a `const`, a docstring has no indentation, and OpenAPI's `discriminator` is no JSON Schema."""
    if isinstance(value, list):
        return [_tidy(one) for one in value]
    if not isinstance(value, dict):
        return value
    tidy = {name: _tidy(inner) for name, inner in value.items() if name != "discriminator"}
    if isinstance(tidy.get("enum"), list) and len(tidy["enum"]) == 1:
        tidy["const"] = tidy.pop("enum")[0]
    if isinstance(tidy.get("description"), str):
        tidy["description"] = " ".join(inspect.cleandoc(tidy["description"]).split())
    return {name: tidy[name] for name in sorted(tidy, key=_rank)}


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _on_the_wire(text: str, struct: types.StructType) -> str:
    """A docstring's `member_names` as they are written in JSON."""
    names = {field.name: field.encode_name for field in struct.fields}
    return re.sub(r"`(\w+)`", lambda found: f"`{names.get(found[1], found[1])}`", text)


def _mark_moment(schema: Schema) -> None:
    for one in schema.get("anyOf", [schema]):
        if one.get("type") == "string":
            one["format"] = "date-time"  # ours are all aware


def _is_moment(kind: types.Type) -> bool:
    return any(isinstance(one, types.DateTimeType) for one in _alternatives(kind))


def _alternatives(kind: types.Type) -> Iterator[types.Type]:
    if isinstance(kind, types.Metadata):
        yield from _alternatives(kind.type)
    elif isinstance(kind, types.UnionType):
        for one in kind.types:
            yield from _alternatives(one)
    else:
        yield kind


def _structs(kind: types.Type) -> Iterator[types.StructType]:
    """The structs that a type is made of, itself among them; none of ours contains itself."""
    for one in _alternatives(kind):
        match one:
            case types.StructType(fields=fields):
                yield one
                for field in fields:
                    yield from _structs(field.type)
            case types.ListType(item_type=inner) | types.VarTupleType(item_type=inner):
                yield from _structs(inner)
            case types.DictType(value_type=inner):
                yield from _structs(inner)
