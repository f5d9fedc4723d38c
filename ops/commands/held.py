"""`gateway held`: see what vanished together with too many others, and decide whether it is deleted."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from common.foreign import name_of
from ops.admin import AdminApi
from ops.commands.admin_options import Url, Yes, need_yes, with_admin
from ops.terminal import AsJson, out, print_json, print_table

HEADS = ("connection", "kind", "item", "location", "resource", "version", "since (UTC)", "name")
PREVIEW = 20

group = typer.Typer(
    no_args_is_help=True,
    help="See what vanished together with too many others (DELETE_BRAKE), and decide whether it is deleted.",
)

Connection = Annotated[int, typer.Argument(help="The connection's number, as Syncaroo gave it.")]
AnyConnection = Annotated[int | None, typer.Argument(help="Only those of this connection.")]


@group.command("list", epilog="Example: [bold]gateway held list 99[/bold]")
def list_held(connection: AnyConnection = None, as_json: AsJson = False, url: Url = None) -> None:
    """List listings that are held, with since when; with --json also their content."""
    found = with_admin(url, lambda admin: admin.held(connection))
    if as_json:
        print_json(found)
        return
    print_table(HEADS, map(_row, found))
    for one in sorted({item["connectionId"] for item in found}):
        out.print(f"connection {one}: {sum(item['connectionId'] == one for item in found)} held")


@group.command(epilog="Example: [bold]gateway held approve 99[/bold]")
def approve(connection: Connection, yes: Yes = False, as_json: AsJson = False, url: Url = None) -> None:
    """Agree that they are gone: each is asked once more at its own URL, and deleted when that says so, too."""
    held = _decide(connection, yes, as_json, url, "approve", "to be deleted")
    _tell(connection, held, as_json, "approved", "approved; each is deleted once its own URL agrees")


@group.command(epilog="Example: [bold]gateway held discard 99[/bold]")
def discard(connection: Connection, yes: Yes = False, as_json: AsJson = False, url: Url = None) -> None:
    """Keep them: what is still missing at the next resync asks again."""
    held = _decide(connection, yes, as_json, url, "discard", "to be kept")
    _tell(connection, held, as_json, "discarded", "kept")


def _decide(connection: int, sure: bool, as_json: bool, url: str | None, decision: str, fate: str) -> int:
    """Show what it is about, ask, and decide about exactly that; gives the number."""
    need_yes(sure, as_json)
    found = with_admin(url, lambda admin: admin.held(connection))
    if not as_json:
        _preview(connection, found, fate)
    if found and not sure:
        typer.confirm(f"{decision} {len(found)}?", abort=True)

    async def work(admin: AdminApi) -> None:
        await admin.decide_held(connection, decision, len(found))

    if found:
        with_admin(url, work)
    return len(found)


def _tell(connection: int, held: int, as_json: bool, name: str, words: str) -> None:
    if as_json:
        print_json({name: held})
    elif held:
        out.print(f"connection {connection}: {held} {words}")


def _preview(connection: int, found: list[dict[str, Any]], fate: str) -> None:
    if not found:
        out.print(f"connection {connection}: nothing is held")
        return
    print_table(HEADS, map(_row, found[:PREVIEW]))
    more = f" ({len(found) - PREVIEW} more: gateway held list {connection})" if len(found) > PREVIEW else ""
    out.print(f"connection {connection}: {len(found)} {fate}{more}")


def _row(listing: dict[str, Any]) -> list[Any]:
    members = ("connectionId", "attributeType", "itemId", "locationId", "resourceId", "version")
    since = f"{datetime.fromisoformat(listing['since']):%Y-%m-%d %H:%M}"
    return [*(listing[name] for name in members), since, name_of(listing["current"])]


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    app.add_typer(group, name="held")
