"""`gateway doctor`: what is wrong with this set-up, and what to do about it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from common.process import EX_CONFIG
from ops.doctor.around import ROLES, Around, Role
from ops.doctor.checks import CHECKS, NAMES
from ops.doctor.finding import STATES, Finding, Result, run_all
from ops.terminal import AsJson, out, print_json, progress

EPILOG = """Examples: [bold]gateway doctor[/bold] looks at everything;
[bold]gateway doctor --only rights --role fetch[/bold] asks whether AMQP_URL's user may do what a fetch worker does;
[bold]gateway doctor --json[/bold] is for programs."""
STYLES = {"ok": "green", "skipped": "dim", "warning": "yellow", "failed": "bold red"}


def _role(text: str) -> Role:
    for role in ROLES:
        if text == role:
            return role
    raise typer.BadParameter(f"{text} is not one of {', '.join(ROLES)}")


def _check(text: str) -> str:
    if text not in NAMES:
        raise typer.BadParameter(f"{text} is not one of {', '.join(NAMES)}")
    return text


Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only", metavar="CHECK", parser=_check, help=f"Only this check; may be repeated: {', '.join(NAMES)}."
    ),
]
ForRole = Annotated[
    Any,
    typer.Option(
        "--role", metavar="ROLE", parser=_role, help=f"Whose settings and rights at the broker: {', '.join(ROLES)}."
    ),
]
Site = Annotated[str | None, typer.Option("--url", help="Ask our own addresses there instead of at SITE_URI.")]


def doctor(only: Only = None, role: ForRole = "all", as_json: AsJson = False, url: Site = None) -> None:
    """Look for what is wrong, and say what to do about it. Changes nothing, and takes 20 s at most.

    Exit code 0 when nothing has failed (there may be warnings), 1 when something has, 78 when settings are wrong.
    """
    results = asyncio.run(_look(role, url, only))
    if as_json:
        print_json(as_told(results))
    else:
        _show(results)
    raise typer.Exit(exit_code(results))


async def _look(role: Role, url: str | None, only: Sequence[str] | None) -> list[Result]:
    checks = [check for check in CHECKS if not only or check.name in only]
    around = Around(role, url)
    try:
        with progress("checks", len(checks)) as done:
            return await run_all(checks, around, done)
    finally:
        await around.close()


def exit_code(results: Sequence[Result]) -> int:
    """Pure."""
    wrong = {result.name for result in results if result.finding.state == "failed"}
    if "settings" in wrong:
        return EX_CONFIG
    return 1 if wrong else 0


def as_told(results: Sequence[Result]) -> dict[str, Any]:
    """For programs. Pure."""
    numbers = Counter(result.finding.state for result in results)
    return {
        "counts": {state: numbers[state] for state in STATES},
        "checks": [
            {"name": one.name, "state": one.finding.state, "seen": one.finding.seen, "advice": one.finding.advice}
            for one in results
        ],
    }


def _show(results: Sequence[Result]) -> None:
    if not out.is_terminal:
        for one in results:
            out.print(in_lines(one), markup=False, highlight=False, soft_wrap=True)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("state", "check", "seen"):
        table.add_column(head, overflow="fold")
    for one in results:
        table.add_row(Text(one.finding.state, STYLES[one.finding.state]), one.name, _words(one.finding))
    out.print(table, soft_wrap=False)


def in_lines(result: Result) -> str:
    """For logs and tickets: what to do stands below what was seen, without the padding of a table. Pure."""
    finding = result.finding
    advice = f"\n{'':<9}{'':<13}→ {finding.advice}" if finding.advice else ""
    return f"{finding.state:<9}{result.name:<13}{finding.seen}{advice}"


def _words(finding: Finding) -> Text:
    text = Text(finding.seen)
    return text.append(f"\n→ {finding.advice}", "bold") if finding.advice else text


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=EPILOG)(doctor)
