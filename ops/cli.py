"""The `gateway` command: one small module per command in `ops.commands`, errors in words and exit codes here."""

from __future__ import annotations

import logging
import sys

import typer

from common.errors import GatewayError, SettingsError
from common.process import EX_CONFIG
from ops.commands import (
    connections,
    db,
    demo,
    dlq,
    doctor,
    hashes,
    held,
    init,
    inventory,
    keys,
    listings,
    portal,
    replay,
    resync,
    sandbox,
    schemas,
    setup,
    snapshot,
    status,
    tail,
    topology,
    users,
    why,
)
from ops.terminal import err
from ops.troubles import in_words

EXIT_CODES = {
    0: "done; all is well",
    1: "refused, not reachable, not found, or not all of it could be done: one sentence on stderr says what to do",
    2: "wrong words on the command line, or a question that nobody is there to answer (`--yes`)",
    3: "`status`: something needs a person; `inventory import --dry-run`: it would change something",
    EX_CONFIG: "settings are wrong: one line each on stderr, the name and never the value",
    130: "Ctrl-C",
}
"""Of all commands; docs/commands.md tells them."""

app = typer.Typer(
    name="gateway",
    help="Sets up, tries out and operates the Syncaroo gateway. Settings come from the environment and .env.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS = (
    init,
    setup,
    doctor,
    demo,
    sandbox,
    topology,
    portal,
    users,
    inventory,
    connections,
    status,
    listings,
    why,
    tail,
    resync,
    held,
    dlq,
    snapshot,
    replay,
    hashes,
    db,
    keys,
    schemas,
)
for module in COMMANDS:
    module.add_to(app)


def main() -> None:
    """The console script."""
    for library in ("aio_pika", "aiormq"):  # they warn of what we report in our own words
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        app()
    except SettingsError as error:
        for fault in error.faults:
            err.print(fault, markup=False)
        sys.exit(EX_CONFIG)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        words = in_words(error) or (str(error) if isinstance(error, GatewayError) else None)
        if words is None:  # a bug: whoever mends it needs the trace
            raise
        err.print(words, markup=False, style="red")
        sys.exit(1)
