"""docs/commands.md, made from the commands themselves: `python -m ops.commands_document` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from ops.cli import EXIT_CODES, app

PLACE = Path(__file__).parents[1] / "docs" / "commands.md"

WITHOUT_JSON = {
    "setup": "what it prints is progress; the exit code is the result",
    "demo": "it plays a story, for people",
    "prove": "as `demo`; the ledger's lines are `name: number`",
    "up": "it runs until Ctrl-C",
    "sandbox": "it runs until Ctrl-C",
}
"""Commands that print nothing for programs, and why."""

_HEAD = """# Commands

`gateway COMMAND --help` tells every option. Settings come from the environment and `.env` ([settings](settings.md)).

Results go to stdout, progress and errors to stderr. An error is one sentence that says what to do. With `--json` a
command prints one JSON value with members in camelCase, and nothing else, on stdout; `tail --json` prints one event per
line. Lists are arrays, with every item whole. Colours are for terminals only, and `NO_COLOR` switches them off.
`gateway --install-completion` teaches your shell to complete commands and options.

Commands that destroy something show what it is about and ask. `--yes` answers; where nobody is there to answer, without
`--yes`, nothing is done (exit code 2).
"""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its words after `gateway`, in the order of `--help`."""
    top = typer.main.get_command(app)
    assert isinstance(top, TyperGroup)
    for name, command in top.commands.items():
        if isinstance(command, TyperGroup):
            yield from ((f"{name} {inner}", found) for inner, found in command.commands.items())
        else:
            yield name, command


def document() -> str:
    """The page."""
    codes = "\n".join(f"| {code} | {words} |" for code, words in EXIT_CODES.items())
    rows = "\n".join(_row(name, command) for name, command in commands())
    return (
        f"{_HEAD}\n## Exit codes\n\n| code | meaning |\n|---|---|\n{codes}\n\n"
        f"## What there is\n\n| command | does | for example |\n|---|---|---|\n{rows}\n"
    )


def _row(name: str, command: Any) -> str:
    does = _plain((command.help or "").partition("\n\n")[0])
    return f"| `{name}` | {does} | `{examples(command)[0]}` |".replace("||", "\\|\\|")


def examples(command: Any) -> list[str]:
    """The command lines of its epilog."""
    return [
        _plain(one).replace("\\[", "[")
        for one in re.findall(r"\[bold\](.*?)\[/bold\]", command.epilog or "", re.DOTALL)
    ]


def _plain(words: str) -> str:
    return " ".join(re.sub(r"\[/?bold\]", "", words).split())


if __name__ == "__main__":
    PLACE.write_text(document(), encoding="utf-8")
