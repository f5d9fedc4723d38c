"""`gateway db`: the store's schema alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import typer

from common.errors import GatewayError, StoreUnavailable
from common.settings import StoreSettings, load
from common.store.engine import Store
from common.store.schema import check_file, current_revision, head_revision, schema_state
from ops.migrating import schema_differences, upgrade_now
from ops.terminal import AsJson, out, print_json

MENDS = {
    "ours": "",
    "none": "gateway db upgrade (or gateway setup, which does the broker, too)",
    "older": "gateway db upgrade (or gateway setup, which does the broker, too)",
    "newer": "run the newer program: this one does not know that schema",
}
"""What to do about a schema that is not ours."""

group = typer.Typer(no_args_is_help=True, help="See which schema the store has; bring it to the newest.")
T = TypeVar("T")


@group.command(epilog="Example: [bold]DATABASE_URL=postgresql+asyncpg://gateway@db/gateway gateway db upgrade[/bold]")
def upgrade(as_json: AsJson = False) -> None:
    """Migrate the store to this version's schema; twice changes nothing.

    Exit code 1 when the store does not answer, or has a schema that is newer.
    """
    if schema_state(_asked(_revision)) == "newer":
        raise GatewayError(f"DATABASE_URL: {MENDS['newer']}.")
    try:
        upgrade_now(_url())
    except StoreUnavailable as error:
        raise _unreadable(error) from error
    if as_json:
        print_json({"current": head_revision(), "needed": head_revision()})
    else:
        out.print(f"schema {head_revision()}")


@group.command(epilog="Example: [bold]gateway db current --json[/bold]")
def current(as_json: AsJson = False) -> None:
    """Show which schema the store has, and which one this program needs. Exit code 1 when they differ."""
    found, needed = _asked(_revision), head_revision()
    if as_json:
        print_json({"current": found, "needed": needed})
    else:
        out.print(f"the store has {found or 'no schema'}, this program needs {needed}")
    raise typer.Exit(0 if found == needed else 1)


@group.command(epilog="Example: [bold]gateway db check && python -m ingress[/bold]")
def check(as_json: AsJson = False) -> None:
    """Compare the store's schema with this program's, table by table, and say what mends it. Changes nothing.

    Exit code 0 when they are the same, 1 when the store is empty, older, newer, or somebody has changed its tables.
    """
    found = _asked(_compared)
    if as_json:
        print_json(found)
    else:
        for line in lines(found):
            out.print(line, markup=False)
    raise typer.Exit(0 if found["state"] == "ours" and not found["differences"] else 1)


async def _compared(store: Store) -> dict[str, Any]:
    revision = await _revision(store)
    state = schema_state(revision)
    differences = await schema_differences(store) if state == "ours" else []
    mend = MENDS[state] or ("put the tables back as they were, or restore a backup" if differences else "")
    return {
        "current": revision,
        "needed": head_revision(),
        "state": state,
        "differences": differences,
        "whatToDo": mend,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """For people. Pure."""
    told = {
        "ours": f"the store has schema {found['current']}, as this program needs it",
        "none": f"the store has no schema, this program needs {found['needed']}",
        "older": f"the store has schema {found['current']}, older than this program's {found['needed']}",
        "newer": f"the store has schema {found['current']}, newer than this program's {found['needed']}",
    }
    mend = [f"what to do: {found['whatToDo']}"] if found["whatToDo"] else []
    return [told[found["state"]], *(f"differs: {one}" for one in found["differences"]), *mend]


async def _revision(store: Store) -> str | None:
    """None for a file that is not there, too: looking must not make it."""
    try:
        check_file(store)
    except StoreUnavailable:
        return None
    return await current_revision(store)


def _asked(ask: Callable[[Store], Awaitable[T]]) -> T:
    async def run() -> T:
        store = Store(_url())
        try:
            return await ask(store)
        except StoreUnavailable as error:
            raise _unreadable(error) from error
        finally:
            await store.close()

    return asyncio.run(run())


def _unreadable(error: StoreUnavailable) -> StoreUnavailable:
    return StoreUnavailable(f"DATABASE_URL: the database cannot be read ({error}). Is it running?")


def _url() -> str:
    (store,) = load(StoreSettings)
    return str(store.database_url.get_secret_value())


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    app.add_typer(group, name="db")
