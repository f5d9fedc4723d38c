"""Holding values against JSON Schemas, formats included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator


def faults(schema: Mapping[str, Any], value: Any) -> list[str]:
    """What is wrong with the value, by the schema; empty: nothing."""
    checks = Draft202012Validator.FORMAT_CHECKER
    assert {"date-time", "uuid"} <= set(checks.checkers), "a format that nobody checks is no format"
    found = Draft202012Validator(schema, format_checker=checks).iter_errors(value)
    return [f"{error.json_path}: {error.message}" for error in found]


def strict(schema: Any) -> Any:
    """A copy in which no object has a member that its schema does not name."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {name: strict(inner) for name, inner in schema.items()}
    closed = isinstance(copy.get("properties"), dict) and copy.get("type") == "object"
    return {"additionalProperties": False, **copy} if closed else copy
