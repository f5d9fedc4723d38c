"""`gateway replay`: events of the table, as they were first published, into one queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from common.settings import HistorySettings, load
from ops.choosing import Changes, Connections, Kinds, Listings, Locations, Since, Types, Until
from ops.moments import When, moment_of
from ops.sending import NotSent, Outlet, To, outlet
from ops.terminal import AsJson, counted, out, print_json, print_table, progress
from workers.relay.replay import Replay, ReplayStopped
from workers.relay.store.past import Found, PastStore, Wanted

EPILOG = "Example: [bold]gateway replay --since 2h --to my-team.listings --connection 99[/bold]"
LINES = 5

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")]


def replay(
    since: Since,
    to: To,
    until: Until = None,
    connection: Connections = None,
    location: Locations = None,
    kind: Kinds = None,
    type_: Types = None,
    change: Changes = None,
    listing: Listings = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send past events into a queue once more, oldest first: same ids, versions and bodies as when they were published.

    Shows how many and which before it asks. Filters look at what an event said
    then, and may be given several times: any of the values of one filter will
    do, but every filter must fit. Of one listing no event overtakes another; a consumer that compares
    versions may have had some before. Reads DATABASE_URL, sends to
    EVENTS_AMQP_URL (or AMQP_URL).
    """
    if as_json and not (yes or dry_run):
        raise typer.BadParameter("a program cannot be asked: give --yes or --dry-run with --json")
    filters = {
        "connections": connection, "locations": location, "kinds": kind, "types": type_, "changes": change,
        "listings": listing,
    }  # fmt: skip
    given = {name: values or () for name, values in filters.items()}
    asyncio.run(_replay(since, until, given, to, sure=yes, dry_run=dry_run, as_json=as_json))


async def _replay(
    since: When, until: When | None, filters: dict[str, Any], to: str, *, sure: bool, dry_run: bool, as_json: bool
) -> None:
    async with outlet() as opened:
        past = PastStore(opened.store)
        now = await past.now()
        wanted = Wanted(moment_of(since, now), None if until is None else moment_of(until, now), **filters)
        if wanted.until is not None and wanted.until <= wanted.since:
            raise typer.BadParameter("--until must be later than --since")
        found = await past.find(wanted, LINES)
        if not as_json:
            _preview(found, _missing(found, wanted.since, now))
            if found.events and not (dry_run or sure):
                await opened.must_be_there(to)
                typer.confirm(f"send {found.events} {'event' if found.events == 1 else 'events'} to {to}?", abort=True)
        sent = 0 if dry_run else await _send(opened, past, wanted, found, to)
        if sent:
            await opened.warn_of_loss(to, sent)
    if as_json:
        print_json(_as_json(found, wanted, to) | ({} if dry_run else {"sent": sent}))
    elif not dry_run:
        out.print(f"{counted(sent, 'event', 'was sent', 'were sent')} to {to}", markup=False)


async def _send(opened: Outlet, past: PastStore, wanted: Wanted, found: Found, to: str) -> int:
    if not found.events:
        return 0
    with progress("events", found.events) as show:
        try:
            return await Replay(past, opened.open_way, opened.source).send(wanted, found, to, show)
        except ReplayStopped as error:
            raise NotSent(opened.words(error.cause, to) + _rest(error)) from error


def _rest(error: ReplayStopped) -> str:
    """What was sent, and how to go on from there."""
    if not error.sent:
        return " Nothing was sent."
    go_on = "" if error.go_on is None else f"; --since {_exact(error.go_on)} sends the rest"
    return f" {counted(error.sent, 'event', 'was', 'were')} sent{go_on}."


def _preview(found: Found, missing: Sequence[str]) -> None:
    if found.first_at is None or found.last_at is None:
        out.print("no event fits")
    else:
        late = f", {found.unpublished} of them not published yet" if found.unpublished else ""
        out.print(f"{found.events} events from {_shown(found.first_at)} to {_shown(found.last_at)} UTC{late}")
        counts = ((one.type, one.attribute_type, one.change, one.events) for one in found.counts)
        print_table(("type", "kind", "change", "events"), counts)
        out.print(f"the first {len(found.lines) - 1} and the last:" if len(found.lines) > LINES else "these:")
        lines = ((_shown(one.at), one.type, one.subject, one.change, one.version) for one in found.lines)
        print_table(("at (UTC)", "type", "subject", "change", "version"), lines)
    for line in missing:
        out.print(line)


def _missing(found: Found, since: datetime, now: datetime) -> list[str]:
    """What can no longer be sent."""
    (history,) = load(HistorySettings)
    lines = []
    if now - since > timedelta(days=history.listing_history_days):
        days = history.listing_history_days
        lines.append(f"older than LISTING_HISTORY_DAYS ({days}), only the latest event of each listing is kept")
    if found.pruned and found.oldest_at is not None:
        lines.append(f"the oldest event of all is of {_shown(found.oldest_at)} UTC; what was before is gone")
    return lines


def _as_json(found: Found, wanted: Wanted, to: str) -> dict[str, Any]:
    counts = [
        {"type": one.type, "attributeType": one.attribute_type, "change": one.change, "events": one.events}
        for one in found.counts
    ]
    return {
        "queue": to,
        "since": wanted.since,
        "until": wanted.until,
        "events": found.events,
        "unpublished": found.unpublished,
        "firstAt": found.first_at,
        "lastAt": found.last_at,
        "oldestAt": found.oldest_at,
        "counts": counts,
    }


def _shown(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _exact(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=EPILOG)(replay)
