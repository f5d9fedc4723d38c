"""`gateway db`: the store's schema alone."""

from __future__ import annotations

import asyncio

import typer

from common.errors import StoreUnavailable
from common.settings import StoreSettings, load
from common.store.engine import Store
from common.store.setup import current_revision, head_revision, upgrade_now
from ops.terminal import AsJson, out, print_json

group = typer.Typer(no_args_is_help=True, help="See which schema the store has; bring it to the newest.")


@group.command(epilog="Example: [bold]DATABASE_URL=postgresql+asyncpg://gateway@db/gateway gateway db upgrade[/bold]")
def upgrade() -> None:
    """Migrate the store to this version's schema; twice changes nothing."""
    upgrade_now(_url())
    out.print(f"schema {head_revision()}")


@group.command(epilog="Example: [bold]gateway db current --json[/bold]")
def current(as_json: AsJson = False) -> None:
    """Show which schema the store has, and which one this program needs. Exit code 1 when they differ."""
    found, needed = asyncio.run(_current(_url())), head_revision()
    if as_json:
        print_json({"current": found, "needed": needed})
    else:
        out.print(f"the store has {found or 'no schema'}, this program needs {needed}")
    raise typer.Exit(0 if found == needed else 1)


async def _current(url: str) -> str | None:
    store = Store(url)
    try:
        return await current_revision(store)
    except StoreUnavailable as error:
        raise StoreUnavailable(f"DATABASE_URL: the database cannot be read ({error})") from error
    finally:
        await store.close()


def _url() -> str:
    (store,) = load(StoreSettings)
    return str(store.database_url.get_secret_value())


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    app.add_typer(group, name="db")
