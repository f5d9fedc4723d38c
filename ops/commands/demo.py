"""`gateway demo` plays the whole story, ending in a ledger; `gateway up` connects everything and leaves it running."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ops.demo import run

Work = Annotated[
    Path, typer.Option("--work", help="Directory for logs and database; what the last run left there is removed.")
]
Database = Annotated[
    str | None, typer.Option("--database-url", help="An empty database to use instead of a SQLite file in --work.")
]


def demo(work: Work = Path(".work/demo"), database_url: Database = None) -> None:
    """Play the whole story on a real broker and end with a ledger. Exit code 1 when it does not add up."""
    raise typer.Exit(run.demo(work, database_url))


def up(work: Work = Path(".work/up"), database_url: Database = None) -> None:
    """Start the gateway with a stand-in Syncaroo, connect both, and leave them running until Ctrl-C."""
    raise typer.Exit(run.up(work, database_url))


def add_to(app: typer.Typer) -> None:
    """Register both commands."""
    app.command(epilog="Example: [bold]gateway demo --work .work/mine[/bold]")(demo)
    app.command(epilog="Example: [bold]gateway up[/bold], then open the addresses that it prints.")(up)
