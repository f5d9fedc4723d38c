"""`gateway schemas`: the documents in the repository, written from the code, or held against it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from common.errors import GatewayError
from ingress.documents.files import files
from ingress.documents.place import EXAMPLE
from ops.schema_history import NoHistory, history_of
from ops.terminal import AsJson, err, out, print_json
from schemas.catalogue import DOCUMENTS, published
from schemas.keeping import Comparison, History, compare

HOW = "The version must go up: SCHEMA_VERSION of an event (schemas/events.py), `v` of a message (schemas/messages.py)."

group = typer.Typer(no_args_is_help=True, help="JSON Schemas, AsyncAPI and OpenAPI, as the repository keeps them.")

Folder = Annotated[Path, typer.Option("--folder", help="Where they are kept.", file_okay=False)]


@group.command(epilog="Example: [bold]gateway schemas write[/bold]")
def write(folder: Folder = DOCUMENTS, as_json: AsJson = False) -> None:
    """Write what the code makes. Refused, with exit code 1, when a schema would break under the version that it has."""
    made = files(EXAMPLE, folder)
    found = _compared(folder, made)
    if found.broken:
        raise GatewayError("\n".join([*found.broken, HOW]))
    for name in [*found.missing, *found.changed]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made[name])
    _tell(found, as_json, "written")


@group.command(epilog="Example: [bold]gateway schemas check --json[/bold]")
def check(folder: Folder = DOCUMENTS, as_json: AsJson = False) -> None:
    """Exit code 1 when the repository keeps anything else than what the code makes, or a schema breaks what it said in
    any commit before."""
    found = _compared(folder, files(EXAMPLE, folder))
    _tell(found, as_json, "differs; run `make schemas`")
    if not found.same:
        raise typer.Exit(1)


def _compared(folder: Path, made: Mapping[str, str]) -> Comparison:
    return compare(_kept(folder), made, published(EXAMPLE.source, folder), _history(folder))


def _history(folder: Path) -> History | None:
    try:
        return history_of(folder)
    except NoHistory as reason:
        err.print(f"Not compared with what the schemas were before: {reason}", markup=False)
        return None


def _kept(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*.json"))}


def _tell(found: Comparison, as_json: bool, fate: str) -> None:
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    for name in [*found.missing, *found.changed]:
        out.print(f"{name}: {fate}", markup=False)
    for name in found.stray:
        out.print(f"{name}: nothing makes it; delete it", markup=False)
    for line in found.broken:
        out.print(line, markup=False)
    if found.broken:
        out.print(HOW, markup=False)


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    app.add_typer(group, name="schemas")
