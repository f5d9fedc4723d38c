"""Options that say which listings or events a command is about: one name and one meaning each, in every command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_args

import typer

from common.identity import NOUNS, plural
from ops.moments import When, parse_when
from schemas.events import BROADCAST, Change

TYPES = tuple(kind.TYPE for kind in BROADCAST)
CHANGES = get_args(Change)
KINDS = sorted(NOUNS)


def _when(text: str) -> When:
    try:
        return parse_when(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _one_of(known: Sequence[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in known:
            raise typer.BadParameter(f"{text} is not one of {', '.join(known)}")
        return text

    return parse


def _number(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise typer.BadParameter(f"{text} is not a whole number") from None
    if abs(number) >= 2**63:
        raise typer.BadParameter(f"{text} is not a number of 64 bits")
    return number


def _name(text: str) -> str:
    if not text:
        raise typer.BadParameter("it is empty")
    return text


def _kind(text: str) -> str:
    kind = plural(text)
    if kind not in NOUNS:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(KINDS)}")
    return kind


_CONNECTION = typer.Option("--connection", metavar="NUMBER", parser=_number, help="Only of this connection.")
_LOCATION = typer.Option(
    "--location", metavar="ID", parser=_name, help="Only of this location, by its id on the platform."
)
_KIND = typer.Option(
    "--kind", metavar="KIND", parser=_kind, help=f"Only of this kind, singular or plural: {', '.join(KINDS)}."
)

Connection = Annotated[int | None, _CONNECTION]
Location = Annotated[str | None, _LOCATION]
Kind = Annotated[str | None, _KIND]

Connections = Annotated[list[int] | None, _CONNECTION]
Locations = Annotated[list[str] | None, _LOCATION]
Kinds = Annotated[list[str] | None, _KIND]
Types = Annotated[
    list[str] | None,
    typer.Option(
        "--type", metavar="TYPE", parser=_one_of(TYPES), help=f"Only events of this type: {', '.join(TYPES)}."
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--change", metavar="CHANGE", parser=_one_of(CHANGES), help=f"Only such changes: {', '.join(CHANGES)}."
    ),
]
Listings = Annotated[
    list[str] | None,
    typer.Option(
        "--listing", metavar="LISTING", parser=_name, help="Only this listing: its listingId, or connection/kind/item."
    ),
]

Since = Annotated[
    Any,
    typer.Option("--since", metavar="WHEN", parser=_when, help="So long ago (2h), or a time: 2026-11-24T10:00 (UTC)."),
]
Until = Annotated[Any, typer.Option("--until", metavar="WHEN", parser=_when, help="Before then; by default until now.")]
