"""`gateway why`: how a listing came to be what it is, by the admin API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from ops.commands.admin_options import Url, with_admin
from ops.terminal import AsJson, out, print_json
from ops.why.ask import ask
from ops.why.screen import screen

EPILOG = "Example: [bold]gateway why 99/resources/7843[/bold]"
NARROWEST, WIDEST = 72, 120

Listing = Annotated[str, typer.Argument(help="listingId, apiUrl or its path, or connectionId/attributeType/itemId.")]
Limit = Annotated[int, typer.Option(min=1, help="How many of the latest attempts and versions.")]


def why(listing: Listing, limit: Limit = 30, as_json: AsJson = False, url: Url = None) -> None:
    """Tell a listing's story: webhooks, attempts, what changed, events. Exit code 1 when nothing is known of it."""
    answers = with_admin(url, lambda admin: ask(admin, listing, limit))
    if as_json:
        print_json(answers.as_json())
        return
    width = min(max(out.width, NARROWEST), WIDEST) if out.is_terminal else 80
    for line in screen(answers, datetime.now(UTC), width):
        out.print(line)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=EPILOG)(why)
