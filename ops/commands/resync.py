"""`gateway resync`: read everything that is known of a connection again."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ops.admin import AdminApi
from ops.commands.admin_options import Url, with_admin
from ops.terminal import AsJson, out, print_json

EPILOG = "Example: [bold]gateway resync 99 --location 1198[/bold]"

Connection = Annotated[int | None, typer.Argument(help="The connection's number, as Syncaroo gave it.")]
Location = Annotated[str | None, typer.Option(help="Only this location of it, by its id on the platform.")]
All = Annotated[bool, typer.Option("--all", help="Every connection that is not revoked.")]


def resync(
    connection: Connection = None,
    location: Location = None,
    every: All = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Have every known target of a connection read again, behind all webhooks; only differences make events."""
    if (connection is None) != every or (every and location is not None):
        raise typer.BadParameter("give a connection's number (and --location), or --all")

    async def work(admin: AdminApi) -> list[dict[str, Any]]:
        wanted = [connection] if connection is not None else await _every(admin)
        return [{"connectionId": one, "targets": await admin.resync(one, location)} for one in wanted]

    begun: Any = with_admin(url, work)
    if as_json:
        print_json({"resyncs": begun})
        return
    for one in begun:
        out.print(f"connection {one['connectionId']}: {_told(one['targets'], location)}")
    if not begun:
        out.print("there is no connection")


def _told(targets: int, location: str | None) -> str:
    if targets:
        return f"{targets} targets are read again"
    where = "" if location is None else f" of location {location}"
    return f"nothing is known{where} that could be read again"


async def _every(admin: AdminApi) -> list[int]:
    return [one["connectionId"] for one in await admin.connections() if one["state"] != "revoked"]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=EPILOG)(resync)
