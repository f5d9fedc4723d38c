"""`gateway inventory`: a user's listings on the platform, as check_connection shows them to Syncaroo."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ops.commands.admin_options import Url, Yes, need_yes, with_admin
from ops.foreign import harmless
from ops.inventory import BadFile, Difference, Format, Locations, differences, format_of, read_inventory
from ops.terminal import AsJson, out, print_json, print_table

WOULD_CHANGE = 3
"""Exit code of a dry run after which something would be different."""

group = typer.Typer(no_args_is_help=True, help="Users' listings on your platform, as Syncaroo is shown them.")

User = Annotated[str, typer.Argument(help="The platform's own id of the user.")]
File = Annotated[Path, typer.Argument(help="JSON (the map of check_connection) or CSV; - for stdin.")]
As = Annotated[str | None, typer.Option("--format", help="json or csv, when the file's name does not tell.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help=f"Show what would change, change nothing; exit {WOULD_CHANGE} if anything would."),
]


@group.command(epilog="Example: [bold]gateway inventory show 1 --json > listings.json[/bold]")
def show(user: User, as_json: AsJson = False, url: Url = None) -> None:
    """Show a user's locations and resources; with --json as import takes them."""
    found = with_admin(url, lambda admin: admin.locations(user))
    if as_json:
        print_json(found)
    else:
        print_table(("location", "resource", "name", "status", "type"), _rows(found))


@group.command("import", epilog="Example: [bold]gateway inventory import 1 listings.csv --dry-run[/bold]")
def import_file(
    user: User,
    file: File,
    form: As = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Replace a user's listings by those of a file; what is not in it becomes deleted. Shows what changes, then asks.

    CSV has a line per resource and these columns: locationId, locationName,
    locationStatus, resourceId, resourceName, resourceType, resourceStatus; the
    last four are empty for a location without resources. A status is one of
    draft, active, private, pending, deleted.
    """
    sure = yes or dry_run
    need_yes(sure, as_json or str(file) == "-")
    wanted = _read(file, form)
    known = with_admin(url, lambda admin: admin.locations(user))
    found = differences(known, wanted)
    if not as_json:
        _preview(user, found, len(wanted))
    if found and not sure:
        typer.confirm(f"change {len(found)} of user {user}?", abort=True)
    if found and not dry_run:
        with_admin(url, lambda admin: admin.put_locations(user, wanted))
    _tell(user, found, as_json, done=not dry_run)
    if found and dry_run:
        raise typer.Exit(WOULD_CHANGE)


def _read(file: Path, form: str | None) -> Locations:
    try:
        content = (sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()).decode("utf-8-sig")
    except OSError:
        raise BadFile(f"{file}: the file cannot be read") from None
    except UnicodeDecodeError:
        raise BadFile(f"{file}: the file is not UTF-8") from None
    try:
        return read_inventory(content, _format(form) or format_of(file.name, content))
    except BadFile as error:
        raise BadFile(harmless(f"{file}: {error}")) from None


def _format(given: str | None) -> Format | None:
    if given not in (None, "json", "csv"):
        raise typer.BadParameter("--format is json or csv")
    return given  # type: ignore[return-value]  # one of these, as was checked


def _preview(user: str, found: Sequence[Difference], wanted: int) -> None:
    if not found:
        out.print(f"user {user}: nothing changes", markup=False)
        return
    rows = ([one.change, one.location_id, one.name, "; ".join(one.details)] for one in found)
    print_table(("change", "location", "name", "what"), rows)
    same = wanted - sum(one.change != "deleted" for one in found)
    out.print(f"user {user}: {len(found)} to be changed, {same} as they are", markup=False)


def _tell(user: str, found: Sequence[Difference], as_json: bool, *, done: bool) -> None:
    if as_json:
        print_json({"userId": user, "changes": found, "done": done})
    elif found and done:
        out.print(f"user {user}: done", markup=False)


def _rows(locations: Locations) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for location in locations.values():
        rows.append([location["ID"], None, location["name"], location["status"], None])
        for one in location.get("resources", ()):
            rows.append([location["ID"], one["ID"], one["name"], one["status"], one["type"]])
    return rows


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    app.add_typer(group, name="inventory")
