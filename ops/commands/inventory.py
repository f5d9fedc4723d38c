"""`gateway inventory`: a user's listings on the platform, as check_connection shows them to Syncaroo."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from common.foreign import harmless
from ops.admin import AdminApi, AdminRefused
from ops.commands.admin_options import Url, Yes, need_yes, with_admin
from ops.inventory import BadFile, Difference, Format, Locations, differences, format_of, read_inventory
from ops.terminal import AsJson, out, print_json, print_table

WOULD_CHANGE = 3
"""Exit code of a dry run after which something would be different."""

group = typer.Typer(no_args_is_help=True, help="Users' listings on your platform, as Syncaroo is shown them.")

User = Annotated[str, typer.Argument(help="The platform's own id of the user.")]
File = Annotated[Path, typer.Argument(help="JSON (the map of check_connection) or CSV; - for stdin.")]
OfUser = Annotated[str | None, typer.Option("--user", help="Whose listings they are, when the file does not tell.")]
As = Annotated[Format | None, typer.Option("--format", help="What it is, when the file's name does not tell.")]
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


@group.command("import", epilog="Example: [bold]gateway inventory import listings.csv --user 1 --dry-run[/bold]")
def import_file(
    file: File,
    user: OfUser = None,
    form: As = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Replace users' listings by those of a file; what is not in it becomes deleted. Shows what changes, then asks.

    CSV has a line per resource and these columns: locationId, locationName,
    locationStatus, resourceId, resourceName, resourceType, resourceStatus; the
    last four are empty for a location without resources. A status is one of
    draft, active, private, pending, deleted. Without --user there is a column
    userId, too, and JSON is a map by userId of such maps; users who are not in the file keep what they have.
    """
    sure = yes or dry_run
    need_yes(sure, as_json or str(file) == "-")
    wanted = _read(file, form, user)
    found = with_admin(url, lambda admin: _compare(admin, wanted))
    if not as_json:
        _preview(found, wanted)
    if found and not sure:
        typer.confirm(f"change {len(found)}?", abort=True)
    if found and not dry_run:
        changed = {one.user_id for one in found}
        told = {user: locations for user, locations in wanted.items() if user in changed}
        with_admin(url, lambda admin: _put(admin, told, quiet=as_json))
    if as_json:
        print_json({"changes": found, "done": not dry_run})
    if found and dry_run:
        raise typer.Exit(WOULD_CHANGE)


def _read(file: Path, form: Format | None, user: str | None) -> dict[str, Locations]:
    try:
        content = (sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()).decode("utf-8-sig")
    except OSError:
        raise BadFile(f"{file}: the file cannot be read") from None
    except UnicodeDecodeError:
        raise BadFile(f"{file}: the file is not UTF-8") from None
    try:
        return read_inventory(content, form or format_of(file.name, content), user)
    except BadFile as error:
        raise BadFile(harmless(f"{file}: {error}")) from None


async def _compare(admin: AdminApi, wanted: Mapping[str, Locations]) -> list[Difference]:
    found: list[Difference] = []
    for user, locations in wanted.items():
        found += differences(user, await admin.locations(user), locations)
    return found


async def _put(admin: AdminApi, wanted: Mapping[str, Locations], *, quiet: bool) -> None:
    """One user after another; a refusal also tells who was done before it: nothing is taken back."""
    done: list[str] = []
    for user, locations in wanted.items():
        try:
            await admin.put_locations(user, locations)
        except AdminRefused as error:
            words = f"user {user}: {error}; done before: {', '.join(done) or 'nobody'}"
            raise AdminRefused(harmless(words), error.status) from None
        done.append(user)
        if not quiet:
            out.print(harmless(f"user {user}: done"), markup=False)


def _preview(found: Sequence[Difference], wanted: Mapping[str, Locations]) -> None:
    if not found:
        out.print("nothing changes")
        return
    rows = ([one.user_id, one.change, one.location_id, one.name, "; ".join(one.details)] for one in found)
    print_table(("user", "change", "location", "name", "what"), rows)
    same = sum(map(len, wanted.values())) - sum(one.change != "deleted" for one in found)
    out.print(f"{len(found)} to be changed, {same} as they are")


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
