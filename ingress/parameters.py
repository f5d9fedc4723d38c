"""What strangers send in queries, forms and paths, as checked values. Pure.

Documented by Syncaroo: names are camelCase since March 2021, and older clients send snake_case; we take either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeVar
from urllib.parse import parse_qsl

from common.errors import Permanent

MAX_FIELDS = 64
MAX_NUMBER = 2**63 - 1

T = TypeVar("T")


class BadInput(Permanent):
    """The request is wrong; `detail` tells a person what to mend and never repeats a secret."""

    def __init__(self, detail: str) -> None:
        super().__init__("invalid_request", detail)


@lru_cache(maxsize=256)
def snake(name: str) -> str:
    """`connectionId` → `connection_id`."""
    return re.sub(r"([A-Z])", r"_\1", name).lower()


def one(values: Mapping[str, T], name: str) -> T | None:
    """The value of a camelCase name or of the same name in snake_case; None when neither is there.

    Raises:
        BadInput: both are there and differ.
    """
    other = snake(name)
    if name in values and other in values and values[name] != values[other]:
        raise BadInput(f"{name} and {other} differ")
    return values.get(name, values.get(other))


def singles(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Parameters of which each occurs once.

    Raises:
        BadInput: one occurs twice, or holds characters that no store takes.
    """
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise BadInput("a parameter occurs twice")
        check_text(name, "a parameter's name")
        found[name] = check_text(value, name)
    return found


def parse_form(body: bytes) -> dict[str, str]:
    """The fields of an `application/x-www-form-urlencoded` body.

    Raises:
        BadInput: not UTF-8, too many fields, or a field occurs twice.
    """
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:  # UnicodeDecodeError is one
        raise BadInput("the form cannot be read: UTF-8, at most 64 fields") from None
    return singles(pairs)


def check_text(value: str, name: str) -> str:
    """The value itself.

    Raises:
        BadInput: it holds NUL or half a character (a lone surrogate), which no store takes.
    """
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise BadInput(f"{name} holds characters that are not allowed")
    return value


def positive_number(text: str | None, name: str) -> int:
    """A positive integer below 2^63, as text of ASCII digits.

    Raises:
        BadInput: it is missing or not one.
    """
    if text is None or not re.fullmatch(r"[0-9]{1,19}", text) or not 0 < int(text) <= MAX_NUMBER:
        raise BadInput(f"{name} must be a positive whole number")
    return int(text)
