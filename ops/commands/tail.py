"""`gateway tail`: events as they come, from the log on the broker."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer
import uvloop

from common.clock import utc_now
from common.codec import decode
from common.errors import BadJson
from common.settings import EventBrokerSettings, load
from ops.foreign import harmless
from ops.moments import moment_of, parse_when
from ops.tail.event import Choice, Event
from ops.tail.lines import Line, Lines
from ops.tail.stream import EventLog, Logged
from ops.terminal import err, out, write_lines

EPILOG = """Examples: [bold]gateway tail --connection 99 --change deleted[/bold] shows what goes, as it goes;
[bold]gateway tail --since 2h --no-follow --json[/bold] prints two hours of events for a program;
[bold]gateway tail --listing 99/resources/7843 --limit 1[/bold] waits for the next change of one listing."""
NARROWEST, WIDEST, PIPED = 72, 160, 120
TYPES = ("listing.changed", "connection.changed", "grant.changed", "sync.held")
CHANGES = ("created", "updated", "deleted")

Connection = Annotated[list[int] | None, typer.Option(help="Only of this connection.")]
Location = Annotated[list[str] | None, typer.Option(help="Only of this location, by its id on the platform.")]
Kind = Annotated[list[str] | None, typer.Option(help="Only locations, resources or rates.")]
Type = Annotated[list[str] | None, typer.Option("--type", help=f"Only events of this type: {', '.join(TYPES)}.")]
Change = Annotated[list[str] | None, typer.Option(help=f"Only listings that were {', '.join(CHANGES)}.")]
Listing = Annotated[list[str] | None, typer.Option(help="Only this listing: its listingId, or connection/kind/item.")]
Since = Annotated[
    str | None, typer.Option(help="Begin so long ago (2h, 30m, 1d) or at a time (2026-01-02T03:04Z); without: now.")
]
Follow = Annotated[
    bool, typer.Option("--follow/--no-follow", "-f", help="Wait for more; --no-follow ends with what is there by now.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="End after so many events.")]
AsJsonLines = Annotated[bool, typer.Option("--json", help="Print each event as it is, one a line, for programs.")]


def tail(
    connection: Connection = None,
    location: Location = None,
    kind: Kind = None,
    type_: Type = None,
    change: Change = None,
    listing: Listing = None,
    since: Since = None,
    follow: Follow = True,
    limit: Limit = None,
    as_json: AsJsonLines = False,
) -> None:
    """Show events as they come, old values in red and new ones in green. Ctrl-C ends it.

    Filters may be given several times: any of the values of one filter will do, but every filter must fit.

    Without --since it begins now; with --no-follow it shows what the log has kept (EVENT_LOG_AGE).

    Needs EVENTS_AMQP_URL or AMQP_URL, and nothing else of the gateway.
    """
    choice = Choice(
        connection=frozenset(connection or ()),
        location=frozenset(location or ()),
        kind=frozenset(kind or ()),
        type=_known("--type", type_, TYPES),
        change=_known("--change", change, CHANGES),
        listing=frozenset(listing or ()),
        since=_moment(since),
    )
    show = Show(choice, limit, as_json)
    (events,) = load(EventBrokerSettings)
    uvloop.run(EventLog(events.url(), _tell).read(choice.since, show, follow=follow))


class Show:
    """Prints what is wanted of the messages that it is given, a batch at once; False when that was enough."""

    def __init__(self, choice: Choice, limit: int | None, as_json: bool) -> None:
        self._choice = choice
        self._left = limit
        self._as_json = as_json
        width = min(max(out.width, NARROWEST), WIDEST) if out.is_terminal else PIPED
        self._lines = Lines(width)

    def __call__(self, messages: Sequence[Logged]) -> bool:
        lines: list[Line] = []
        for message in messages:
            event = _event(message)
            if event is None or not self._choice.wants(event):
                continue
            lines += [[(harmless(message.body.decode()), "")]] if self._as_json else self._lines.of(event)
            if self._left is not None:
                self._left -= 1
                if self._left == 0:
                    break
        if lines:
            write_lines(lines)
        return self._left != 0


def _event(message: Logged) -> Event | None:
    try:
        return decode(message.body, Event)
    except BadJson:
        _tell(f"offset {message.offset}: not an event of the gateway")
        return None


def _tell(line: str) -> None:
    err.print(line, style="dim", markup=False)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return moment_of(parse_when(text), utc_now())
    except ValueError as error:
        raise typer.BadParameter(f"--since: {error}") from error


def _known(option: str, values: Sequence[str] | None, known: Sequence[str]) -> frozenset[str]:
    for value in values or ():
        if value not in known:
            raise typer.BadParameter(f"{option} is one of {', '.join(known)}")
    return frozenset(values or ())


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=EPILOG)(tail)
