"""`gateway status`: how things stand at a glance, by the admin API, and what a person should do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from common.words import things
from ops.commands.admin_options import Url, with_admin
from ops.terminal import AsJson, out, print_json, print_table
from ops.why.words import length

EPILOG = """Examples: [bold]gateway status[/bold] for people;
[bold]gateway status --json || [ $? -ne 3 ] || page-somebody[/bold] for scripts."""
NEEDS_A_PERSON = 3


@dataclass(frozen=True)
class Line:
    """One thing, how it is, and what a person has to do about it; empty: nothing."""

    what: str
    how: str
    to_do: str = ""


def status(as_json: AsJson = False, url: Url = None) -> None:
    """Show the grant, what is waiting, parked, held and silent, and what to do about it.

    Exit code 0 when all is well, 1 when the ingress does not answer, 3 when something needs a person.
    """
    found = with_admin(url, lambda admin: admin.status())
    lines = list(lines_of(found, datetime.now(UTC)))
    if as_json:
        print_json(found)
    else:
        _show(lines)
    raise typer.Exit(NEEDS_A_PERSON if any(line.to_do for line in lines) else 0)


def lines_of(found: dict[str, Any], now: datetime) -> Iterator[Line]:
    """What is most pressing first. Pure."""
    yield _grant(found["grant"], now)
    yield Line("broker", "answers") if found["broker"] else Line("broker", "away", "gateway doctor --only broker")
    parked = sum(found["parked"].values())
    by_reason = ", ".join(f"{number} {reason}" for reason, number in sorted(found["parked"].items()))
    yield Line("parked", f"{parked} ({by_reason})", "gateway dlq list") if parked else Line("parked", "nothing")
    held = found["held"]
    yield Line("held", things(held, "deletion"), "gateway held list") if held else Line("held", "nothing")
    yield _waiting(found["flow"])
    yield Line(
        "connections",
        ", ".join(f"{number} {state}" for state, number in sorted(found["connections"].items())) or "none",
    )
    yield Line("listings", str(found["listings"]))
    yield from _feeds(found["feeds"], now)


def _waiting(flow: dict[str, Any]) -> Line:
    """What is to be fetched and published, each with the age of its oldest."""
    targets, events = flow["targets"], flow["events"]["unpublished"]
    told = {
        "to be read after webhooks": (targets["webhook"], "URL"),
        "to be read by resyncs": (targets["resync"], "URL"),
        "put off": (targets["putOff"], "URL"),
        "to be published": (events, "event"),
    }
    return Line("waiting", ", ".join(_queued(*how, what) for what, how in told.items() if how[0]["count"]) or "nothing")


def _queued(waiting: dict[str, Any], thing: str, what: str) -> str:
    oldest = waiting["oldestSeconds"]
    age = "" if oldest is None else f", the oldest for {length(timedelta(seconds=oldest))}"
    return f"{things(waiting['count'], thing)} {what}{age}"


def _grant(grant: dict[str, Any], now: datetime) -> Line:
    state, expires = grant["state"], grant["expiresAt"]
    if state != "active":
        words = {"none": "nobody has let us into Syncaroo's API yet", "needs_authorisation": "refused: fetching waits"}
        return Line("grant", words.get(state, state), "open SITE_URI/connect and authorise")
    if expires is None:
        return Line("grant", "active")
    left = datetime.fromisoformat(expires) - now
    if left.total_seconds() < 0:
        return Line("grant", f"active, but its token ran out {length(-left)} ago", "is a token worker running?")
    return Line("grant", f"active, its token lasts for {length(left)} more")


def _feeds(feeds: dict[str, Any], now: datetime) -> Iterator[Line]:
    heard, silent = feeds["heardAt"], feeds["silent"]
    yield Line("last webhook", "none yet" if heard is None else f"{length(now - datetime.fromisoformat(heard))} ago")
    if feeds["missed"]:
        yield Line("missed", f"{things(feeds['missed'], 'connection')} to be read again after an outage")
    if silent:
        told = [f"{one} for {length(now - datetime.fromisoformat(how['silentSince']))}" for one, how in silent.items()]
        yield Line("silent", f"connection {', '.join(told[:5])}{' …' if len(told) > 5 else ''}; they are read by plan")


def _show(lines: list[Line]) -> None:
    if not out.is_terminal:
        print_table(("what", "how", "to do"), ([line.what, line.how, line.to_do] for line in lines))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for line in lines:
        how = Text(line.how, "yellow" if line.to_do else "")
        table.add_row(line.what, how.append(f"  → {line.to_do}", "bold") if line.to_do else how)
    out.print(table, soft_wrap=False)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=EPILOG)(status)
