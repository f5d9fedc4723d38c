"""`gateway sandbox`: the stand-in Syncaroo alone, for a gateway that runs elsewhere."""

from __future__ import annotations

import typer

from sandbox.__main__ import main

EPILOG = "Example: [bold]gateway sandbox --platform-url http://localhost:8080 --change-every 5[/bold]"


def sandbox(context: typer.Context) -> None:
    """Run the stand-in Syncaroo until Ctrl-C. All flags are its own: [bold]gateway sandbox --help[/bold] lists them."""
    main(context.args)


def add_to(app: typer.Typer) -> None:
    """Register the command; its words go to the stand-in as they are, --help included."""
    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    app.command(context_settings=settings, epilog=EPILOG)(sandbox)
