"""`gateway demo` plays the whole story and ends with a ledger; `gateway up` sets the same stage and leaves it running."""

import typer


def add_to(app: typer.Typer) -> None:
    """Register both commands."""
