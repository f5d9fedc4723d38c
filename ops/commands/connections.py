"""`gateway connections`: whose connections there are, and ending one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ops.commands.admin_options import Url, Yes, need_yes, with_admin
from ops.terminal import AsJson, out, print_json, print_table

HEADS = ("connectionId", "userId", "state", "createdAt", "heardAt", "silentSince", "nextResyncAt")

group = typer.Typer(no_args_is_help=True, help="Users' connections to Syncaroo: see them, end one.")

Connection = Annotated[int, typer.Argument(help="The connection's number, as Syncaroo gave it.")]
OfUser = Annotated[str | None, typer.Option("--user", help="Only those of this user, by the platform's own id.")]


@group.command("list", epilog="Example: [bold]gateway connections list --user 1[/bold]")
def list_connections(user: OfUser = None, as_json: AsJson = False, url: Url = None) -> None:
    """List connections; one without a user is that of an erased one."""
    found = with_admin(url, lambda admin: admin.connections(user))
    if as_json:
        print_json(found)
    else:
        print_table(HEADS, map(_row, found))


@group.command(epilog="Example: [bold]gateway connections show 99[/bold]")
def show(connection: Connection, as_json: AsJson = False, url: Url = None) -> None:
    """Show a connection."""
    found = with_admin(url, lambda admin: admin.connection(connection))
    if as_json:
        print_json(found)
    else:
        print_table(("", ""), found.items())


@group.command(epilog="Example: [bold]gateway connections revoke 99[/bold]")
def revoke(connection: Connection, yes: Yes = False, as_json: AsJson = False, url: Url = None) -> None:
    """End a connection: its tokens are refused within seconds, syncing stops; what is known of it is kept.

    Only the user can bring it back, by authorising it again.
    """
    need_yes(yes, as_json)
    found = with_admin(url, lambda admin: admin.connection(connection))
    if not as_json:
        print_table(HEADS, [_row(found)])
    if not yes and found["state"] != "revoked":
        typer.confirm(f"revoke connection {connection}?", abort=True)
    with_admin(url, lambda admin: admin.revoke(connection))
    if as_json:
        print_json({"connectionId": connection, "state": "revoked", "was": found["state"]})
    else:
        out.print(f"connection {connection}: {'was' if found['state'] == 'revoked' else 'is'} revoked")


def _row(connection: dict[str, Any]) -> list[Any]:
    return [connection[name] for name in HEADS]


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    app.add_typer(group, name="connections")
