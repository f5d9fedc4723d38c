"""`gateway dlq`: see what could not be processed, look inside, put it back, or drop it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from common.clock import utc_now
from common.settings import parse_duration
from ops.admin import AdminApi, AdminRefused
from ops.choosing import Connection
from ops.commands.admin_options import Url, Yes, confirmed, with_admin
from ops.terminal import AsJson, counted, err, out, print_json, print_table, progress

HEADS = ("id", "queue", "reason", "connectionId", "at", "attempts")
PREVIEW = 5

group = typer.Typer(no_args_is_help=True, help="See what could not be processed, look inside, put it back, or drop it.")

Letter = dict[str, Any]


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text} {error}") from error


Queue = Annotated[str | None, typer.Option(help="Only those of token, fetch, reconcile or snapshot.")]
Reason = Annotated[str | None, typer.Option(help="Only those with this reason, as list shows it.")]
Older = Annotated[
    Any, typer.Option("--older-than", metavar="DURATION", parser=_duration, help="Parked before, such as 2h.")
]
Newer = Annotated[
    Any, typer.Option("--newer-than", metavar="DURATION", parser=_duration, help="Parked since, such as 2h.")
]
Ids = Annotated[list[str] | None, typer.Argument(help="Ids, as list shows them.")]
Id = Annotated[str, typer.Argument(help="Its id, as list shows it.")]
All = Annotated[bool, typer.Option("--all", help="All of them, when no filter is given.")]


@dataclass(frozen=True)
class Wanted:
    """Which dead letters; None: any."""

    queue: str | None
    reason: str | None
    connection: int | None
    older_than: timedelta | None
    newer_than: timedelta | None

    @property
    def is_anything(self) -> bool:
        """Whether nothing was asked for in particular."""
        return all(value is None for value in vars(self).values())

    async def read(self, admin: AdminApi) -> list[Letter]:
        """Oldest first."""
        now = utc_now()
        found = await admin.dead_letters(self.queue, self.connection, self.reason)
        return [letter for letter in found if self.fits(letter, now)]

    def fits(self, letter: Letter, now: datetime) -> bool:
        """Whether its age is right."""
        age = now - datetime.fromisoformat(letter["at"])
        return (self.older_than is None or age >= self.older_than) and (
            self.newer_than is None or age <= self.newer_than
        )


@dataclass(frozen=True)
class Outcome:
    """What became of each."""

    done: list[str]
    failed: list[dict[str, str]]


@group.command("list", epilog="Example: [bold]gateway dlq list --queue fetch --older-than 2h[/bold]")
def list_letters(
    queue: Queue = None,
    reason: Reason = None,
    connection: Connection = None,
    older_than: Older = None,
    newer_than: Newer = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List dead letters, oldest first, with their reasons; with --json also their bodies (secrets masked)."""
    wanted = Wanted(queue, reason, connection, older_than, newer_than)
    found = with_admin(url, wanted.read)
    if as_json:
        print_json(found)
        return
    print_table(HEADS, ([letter[name] for name in HEADS] for letter in found))
    if found:
        out.print(_by_reason(found), markup=False)


@group.command(epilog="Example: [bold]gateway dlq show 0197a6f2-1f0c-7d3a-9d8e-2c4b6a8e0f11[/bold]")
def show(letter_id: Id, as_json: AsJson = False, url: Url = None) -> None:
    """Show one dead letter: where it was, why it is here, what is in it (secrets masked), what replay would do."""
    found = with_admin(url, lambda admin: admin.dead_letter(letter_id))
    if as_json:
        print_json(found)
        return
    for name in HEADS:
        out.print(f"{name}: {'' if found[name] is None else found[name]}", markup=False)
    out.print(f"replay would send it to {found['queue']} again, as new; it is forgotten once the broker has it")
    print_json(found["body"])


@group.command(epilog="Example: [bold]gateway dlq replay --queue fetch --reason not_found --yes[/bold]")
def replay(
    ids: Ids = None,
    every: All = False,
    queue: Queue = None,
    reason: Reason = None,
    connection: Connection = None,
    older_than: Older = None,
    newer_than: Newer = None,
    yes: Yes = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Put dead letters back where they came from, by ids or by filters, after a look at what it is about.

    Exit code 1 when one of them could not be put back: it stays.
    """
    wanted = Wanted(queue, reason, connection, older_than, newer_than)
    _each(_chosen(ids, every, wanted), yes, as_json, url, "replayed", lambda admin, one: admin.replay(one))


@group.command(epilog="Example: [bold]gateway dlq drop --reason bad_json --older-than 7d --yes[/bold]")
def drop(
    ids: Ids = None,
    every: All = False,
    queue: Queue = None,
    reason: Reason = None,
    connection: Connection = None,
    older_than: Older = None,
    newer_than: Newer = None,
    yes: Yes = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Forget dead letters for good, by ids or by filters, after a look at what it is about.

    Exit code 1 when one of them could not be dropped.
    """
    wanted = Wanted(queue, reason, connection, older_than, newer_than)
    _each(_chosen(ids, every, wanted), yes, as_json, url, "dropped", lambda admin, one: admin.drop(one))


Choose = Callable[[AdminApi], Awaitable[list[Letter]]]


def _chosen(ids: list[str] | None, every: bool, wanted: Wanted) -> Choose:
    """Ids, or filters, or all: never by accident everything."""
    if ids and (every or not wanted.is_anything):
        raise typer.BadParameter("give ids, or filters, not both")
    if not ids and every != wanted.is_anything:
        raise typer.BadParameter("give ids, or filters such as --queue fetch, or --all")

    async def by_id(admin: AdminApi) -> list[Letter]:
        return [await admin.dead_letter(one) for one in ids or ()]

    return by_id if ids else wanted.read


def _each(
    choose: Choose,
    yes: bool,
    as_json: bool,
    url: str | None,
    done: str,
    act: Callable[[AdminApi, str], Awaitable[None]],
) -> None:
    confirmed_by = confirmed(yes, as_json)
    found = with_admin(url, choose)
    if not as_json:
        _preview(found)
    if found:
        confirmed_by(f"{len(found)} to be {done}, sure?")
    outcome = with_admin(url, lambda admin: _all(admin, [letter["id"] for letter in found], done, act))
    if as_json:
        print_json({done: outcome.done, "failed": outcome.failed})
    else:
        out.print(f"{len(outcome.done)} {done}")
        for one in outcome.failed:
            err.print(f"{one['id']}: {one['why']}", markup=False)
    raise typer.Exit(1 if outcome.failed else 0)


async def _all(
    admin: AdminApi, ids: Sequence[str], done: str, act: Callable[[AdminApi, str], Awaitable[None]]
) -> Outcome:
    """One after another; those after an ingress that does not answer are not tried."""
    outcome = Outcome([], [])
    with progress(done, len(ids)) as show_done:
        for number, one in enumerate(ids, start=1):
            try:
                await act(admin, one)
            except AdminRefused as error:
                outcome.failed.append({"id": one, "why": str(error)})
                if not error.status:
                    outcome.failed.extend({"id": later, "why": "not tried"} for later in ids[number:])
                    break
            else:
                outcome.done.append(one)
            show_done(number)
    return outcome


def _preview(found: Sequence[Letter]) -> None:
    if not found:
        out.print("there are none such")
        return
    print_table(HEADS, ([letter[name] for name in HEADS] for letter in found[:PREVIEW]))
    more = f" ({len(found) - PREVIEW} more: gateway dlq list)" if len(found) > PREVIEW else ""
    out.print(f"{_by_reason(found)}{more}", markup=False)


def _by_reason(found: Sequence[Letter]) -> str:
    numbers = Counter(letter["reason"] for letter in found)
    told = ", ".join(f"{number} {reason}" for reason, number in numbers.most_common())
    return f"{counted(len(found), 'dead letter')} here: {told}"


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    app.add_typer(group, name="dlq")
