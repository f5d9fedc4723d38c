"""Options that say which listings or events a command is about: one name and one meaning each, in every command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_args

import typer

from ops.moments import When, parse_when
from schemas.events import BROADCAST, Change

TYPES = tuple(kind.TYPE for kind in BROADCAST)
CHANGES = get_args(Change)


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


_CONNECTION = typer.Option("--connection", help="Only of this connection.")
_LOCATION = typer.Option("--location", help="Only of this location, by its id on the platform.")
_KIND = typer.Option("--kind", help="Only locations, resources or rates.")

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
    list[str] | None, typer.Option("--listing", help="Only this listing: its listingId, or connection/kind/item.")
]

Since = Annotated[
    Any,
    typer.Option("--since", metavar="WHEN", parser=_when, help="So long ago (2h), or a time: 2026-11-24T10:00 (UTC)."),
]
Until = Annotated[Any, typer.Option("--until", metavar="WHEN", parser=_when, help="Before then; by default until now.")]
