"""`gateway keys`: keys for SECRET_KEYS."""

from __future__ import annotations

import typer
from cryptography.fernet import Fernet

from ops.terminal import AsJson, print_json

group = typer.Typer(no_args_is_help=True, help="Keys for SECRET_KEYS.")


@group.callback()
def callback() -> None:
    """Keys for SECRET_KEYS."""


@group.command(epilog='Example: [bold]echo "SECRET_KEYS=$(gateway keys new)" >> .env[/bold]')
def new(as_json: AsJson = False) -> None:
    """Print a fresh key. To rotate: append it to SECRET_KEYS everywhere, then move it to the front."""
    key = Fernet.generate_key().decode()
    if as_json:
        print_json({"key": key})
    else:
        print(key)


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    app.add_typer(group, name="keys")
