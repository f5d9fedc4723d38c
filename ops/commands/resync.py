"""`gateway resync`: read everything that is known of a connection again."""

from __future__ import annotations

from typing import Annotated

import typer

from ops.commands.admin_options import Url, with_admin
from ops.terminal import out

EPILOG = "Example: [bold]gateway resync 99[/bold]"


def resync(
    connection: Annotated[int, typer.Argument(help="The connection's number, as Syncaroo gave it.")],
    url: Url = None,
) -> None:
    """Have every known target of a connection read again, behind all webhooks; only differences make events."""
    with_admin(url, lambda admin: admin.resync(connection))
    out.print(f"connection {connection}: a resync is on its way")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=EPILOG)(resync)
