"""The `gateway` command: one small module per command in `ops.commands`, errors in words and exit codes here.

Exit codes: 0 done, 1 refused or not reachable, 2 wrong words on the command line, 3 `inventory import --dry-run` would
change something, 78 wrong settings, 130 Ctrl-C.
"""

from __future__ import annotations

import logging
import sys

import typer

from common.errors import GatewayError, SettingsError
from common.process import EX_CONFIG
from ops.commands import (
    connections,
    db,
    dead_letters,
    demo,
    hashes,
    held,
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

app = typer.Typer(
    name="gateway",
    help="Sets up, tries out and operates the Syncaroo gateway. Settings come from the environment and .env.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS = (
    setup,
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
    dead_letters,
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
    except GatewayError as error:
        err.print(str(error), markup=False, style="red")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
