"""`gateway prove`: everything fails under load, and nothing is lost."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from ops.prove import run

MOST_SEED = 10**6


def prove(
    minutes: Annotated[float, typer.Option(min=0.2, help="How long things fail; what follows takes a minute.")] = 2,
    seed: Annotated[int | None, typer.Option(help="World, load and order of failures of an earlier run.")] = None,
    work: Annotated[
        Path, typer.Option(help="Directory for logs and database; what the last run left there is removed.")
    ] = Path(".work/prove"),
    database_url: Annotated[
        str | None, typer.Option(help="An empty database to use instead of a SQLite file in --work.")
    ] = None,
) -> None:
    """Run a gateway and a stand-in Syncaroo on a broker of their own, and let everything fail under load.

    Processes, broker and store are killed, frozen, locked and full, lines are cut, clocks jump; Syncaroo fails, lags,
    lies and loses webhooks and answers. Then all is mended, and a ledger adds up what was sent, asked, told and stored.
    Exit code 1 when it does not add up.
    """
    chosen = secrets.randbelow(MOST_SEED) if seed is None else seed
    raise typer.Exit(run.prove(work, minutes=minutes, seed=chosen, database_url=database_url))


def add_to(app: typer.Typer) -> None:
    """Register it."""
    app.command(epilog="Example: [bold]gateway prove --minutes 10 --seed 7[/bold]")(prove)
