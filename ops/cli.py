"""The `gateway` command: one small module per command in `ops.commands`, errors in words and exit codes here."""

from __future__ import annotations

import logging
import sys
from collections import UserDict
from functools import cache
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from common.errors import GatewayError, SettingsError
from common.process import EX_CONFIG
from ops.terminal import err

EXIT_CODES = {
    0: "done; all is well",
    1: "refused, not reachable, not found, or not all of it could be done: one sentence on stderr says what to do",
    2: "wrong words on the command line, or a question that nobody is there to answer (`--yes`)",
    3: "`status`: something needs a person; `inventory import --dry-run`: it would change something",
    EX_CONFIG: "settings are wrong: one line each on stderr, the name and never the value",
    130: "Ctrl-C",
}
"""Of all commands; docs/commands.md tells them."""

MODULES = {
    "init": "init",
    "setup": "setup",
    "doctor": "doctor",
    "demo": "demo",
    "up": "demo",
    "prove": "prove",
    "sandbox": "sandbox",
    "topology": "topology",
    "portal": "portal",
    "users": "users",
    "inventory": "inventory",
    "connections": "connections",
    "status": "status",
    "listings": "listings",
    "why": "why",
    "tail": "tail",
    "resync": "resync",
    "held": "held",
    "dlq": "dlq",
    "snapshot": "snapshot",
    "replay": "replay",
    "hash": "hashes",
    "db": "db",
    "keys": "keys",
    "schemas": "schemas",
}
"""Where each command is, in the order of `--help`."""


class Commands(UserDict[str, Any]):
    """Commands by name, each loaded when it is asked for: all of them take longer to load than most take to run."""

    def __getitem__(self, name: str) -> Any:
        return command(name) if name in self.data else super().__getitem__(name)


class OnDemand(TyperGroup):
    """A group whose commands are loaded so."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = Commands(MODULES)


@cache
def command(name: str) -> Any:
    """The command, or the group of commands, of a name in `MODULES`."""
    alone = typer.Typer(rich_markup_mode="rich")
    import_module(f"ops.commands.{MODULES[name]}").add_to(alone)
    return typer.main.get_group(alone).commands[name]


app = typer.Typer(
    name="gateway",
    cls=OnDemand,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def gateway() -> None:
    """Sets up, tries out and operates the Syncaroo gateway. Settings come from the environment and .env."""


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
        from ops.troubles import in_words  # noqa: PLC0415  # it loads every library that may be in trouble

        words = in_words(error) or (str(error) if isinstance(error, GatewayError) else None)
        if words is None:  # a bug: whoever mends it needs the trace
            raise
        err.print(words, markup=False, style="red")
        sys.exit(1)
