"""`gateway status`: how things stand, by the admin API."""

from __future__ import annotations

from typing import Any

import typer

from ops.commands.admin_options import Url, with_admin
from ops.terminal import AsJson, print_json, print_table

EPILOG = "Example: [bold]gateway status --json[/bold]"


def status(as_json: AsJson = False, url: Url = None) -> None:
    """Show the grant, what is waiting, parked and known. Exit code 1 when the ingress does not answer."""
    found = with_admin(url, lambda admin: admin.status())
    if as_json:
        print_json(found)
        return
    print_table(["what", "how"], list(_flat(found)))


def _flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """Nested members as `grant.state`."""
    if not isinstance(value, dict) or not value:
        return [(name, value or 0 if isinstance(value, dict) else value)]
    return [row for key, inner in value.items() for row in _flat(inner, f"{name}.{key}" if name else key)]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=EPILOG)(status)
