"""`gateway listings`: what the store knows, by the admin API."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from common.foreign import name_of
from ops.commands.admin_options import Url, with_admin
from ops.terminal import AsJson, print_json, print_table

EPILOG = "Example: [bold]gateway listings --connection 99 --kind rates[/bold]"


def listings(
    connection: Annotated[int | None, typer.Option(help="Only those of this connection.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only locations, resources or rates.")] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List listings with their versions; with --json also their content."""
    wanted = {"connectionId": connection, "attributeType": kind}
    filters = {name: value for name, value in wanted.items() if value is not None}
    found = with_admin(url, lambda admin: admin.listings(**filters))
    if as_json:
        print_json(found)
        return
    print_table(["connection", "kind", "item", "location", "resource", "version", "name"], map(_row, found))


def _row(listing: dict[str, Any]) -> list[Any]:
    members = ("connectionId", "attributeType", "itemId", "locationId", "resourceId", "version")
    name = "(deleted)" if listing["deleted"] else name_of(listing["current"])
    return [*(listing[name] for name in members), f"{name} (connection revoked)" if listing["revoked"] else name]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=EPILOG)(listings)
