"""`gateway dead-letters`: see what could not be processed, put it back, or drop it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from ops.admin import AdminApi
from ops.commands.admin_options import Url, with_admin
from ops.terminal import AsJson, out, print_json, print_table

group = typer.Typer(no_args_is_help=True, help="See what could not be processed, put it back, or drop it.")

Queue = Annotated[str | None, typer.Option(help="Only those of token, fetch, reconcile or snapshot.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Ids, as list shows them.")]
All = Annotated[bool, typer.Option("--all", help="All of them (of --queue, when given).")]


@group.command("list", epilog="Example: [bold]gateway dead-letters list --queue fetch[/bold]")
def list_letters(queue: Queue = None, as_json: AsJson = False, url: Url = None) -> None:
    """List dead letters, oldest first, with their reasons; with --json also their bodies (secrets masked)."""
    found = with_admin(url, lambda admin: admin.dead_letters(queue))
    if as_json:
        print_json(found)
        return
    heads = ("id", "queue", "reason", "connectionId", "at", "attempts")
    print_table(heads, ([letter[name] for name in heads] for letter in found))


@group.command(epilog="Example: [bold]gateway dead-letters replay --all --queue fetch[/bold]")
def replay(ids: Ids = None, every: All = False, queue: Queue = None, as_json: AsJson = False, url: Url = None) -> None:
    """Put dead letters back where they came from."""
    _each(ids, every, queue, as_json, url, "replayed", lambda admin, one: admin.replay(one))


@group.command(epilog="Example: [bold]gateway dead-letters drop 0197a6f2-…[/bold]")
def drop(ids: Ids = None, every: All = False, queue: Queue = None, as_json: AsJson = False, url: Url = None) -> None:
    """Forget dead letters for good."""
    _each(ids, every, queue, as_json, url, "dropped", lambda admin, one: admin.drop(one))


def _each(
    ids: list[str] | None,
    every: bool,
    queue: str | None,
    as_json: bool,
    url: str | None,
    done: str,
    act: Callable[[AdminApi, str], Awaitable[None]],
) -> None:
    if bool(ids) == every:
        raise typer.BadParameter("give ids, or --all")

    async def work(admin: AdminApi) -> list[str]:
        wanted = ids or [letter["id"] for letter in await admin.dead_letters(queue)]
        for one in wanted:
            await act(admin, one)
        return wanted

    finished: Any = with_admin(url, work)
    if as_json:
        print_json({done: finished})
    else:
        out.print(f"{len(finished)} {done}")


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    app.add_typer(group, name="dead-letters")
