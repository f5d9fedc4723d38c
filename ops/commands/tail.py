"""`gateway tail`: events as they come, from the log on the broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
import uvloop

from common.clock import utc_now
from common.codec import decode
from common.errors import BadJson
from common.foreign import harmless
from common.settings import EventBrokerSettings, load
from ops.choosing import Changes, Connections, Kinds, Listings, Locations, Since, Types
from ops.moments import moment_of
from ops.tail.event import Choice, Event
from ops.tail.lines import Line, Lines
from ops.tail.stream import EventLog, Logged
from ops.terminal import err, out, write_lines

EPILOG = """Examples: [bold]gateway tail --connection 99 --change deleted[/bold] shows what goes, as it goes;
[bold]gateway tail --since 2h --no-follow --json[/bold] prints two hours of events for a program;
[bold]gateway tail --listing 99/resources/7843 --limit 1[/bold] waits for the next change of one listing."""
NARROWEST, WIDEST, PIPED = 72, 160, 120

Follow = Annotated[
    bool, typer.Option("--follow/--no-follow", "-f", help="Wait for more; --no-follow ends with what is there by now.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="End after so many events.")]
AsJsonLines = Annotated[bool, typer.Option("--json", help="Print each event as it is, one a line, for programs.")]


def tail(
    connection: Connections = None,
    location: Locations = None,
    kind: Kinds = None,
    type_: Types = None,
    change: Changes = None,
    listing: Listings = None,
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
        type=frozenset(type_ or ()),
        change=frozenset(change or ()),
        listing=frozenset(listing or ()),
        since=None if since is None else moment_of(since, utc_now()),
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
            if not (shown := self._shown(message)):
                continue
            lines += shown
            if self._left is not None:
                self._left -= 1
                if self._left == 0:
                    break
        if lines:
            write_lines(lines)
        return self._left != 0

    def _shown(self, message: Logged) -> list[Line]:
        """Its lines; none for what is not wanted, or is no event of ours: anybody who may publish can send one."""
        try:
            event = decode(message.body, Event)
            if not self._choice.wants(event):
                return []
            return [[(harmless(message.body.decode()), "")]] if self._as_json else list(self._lines.of(event))
        except (BadJson, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            _tell(f"offset {message.offset}: not an event of the gateway")
            return []


def _tell(line: str) -> None:
    err.print(line, style="dim", markup=False)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=EPILOG)(tail)
