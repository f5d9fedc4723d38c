"""Bringing a store to this version's schema, and telling how its tables differ from it."""

from __future__ import annotations

import asyncio
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from common.store.engine import Store, is_passing, unavailable
from common.store.schema import MIGRATIONS
from schemas.tables import SQLModel

_OFF = {"add": "is missing", "rem": "is one too many"}


def alembic_config() -> Config:
    """Alembic's configuration, in code: the project has no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


async def upgrade(database_url: str) -> None:
    """Migrate to the newest schema; doing it twice changes nothing.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    store = Store(database_url)
    try:
        await (_upgrade_postgres(database_url) if store.postgres else _upgrade_sqlite(store))
    finally:
        await store.close()


async def _upgrade_sqlite(store: Store) -> None:
    # As the workers open it: else each statement would be a transaction, and a kill would leave half a schema.
    async with store.transaction() as transaction:
        await transaction.execute_sync(_upgrade)


async def _upgrade_postgres(database_url: str) -> None:
    # Without the workers' time limits: a migration may take its time.
    engine = create_async_engine(database_url, hide_parameters=True)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade)
    except (SQLAlchemyError, OSError) as error:
        if is_passing(error):
            raise unavailable(error) from error
        raise
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":  # two setups at once take turns, as the file lock lets them on SQLite
        connection.execute(text("SELECT pg_advisory_xact_lock(7264017)"))
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def upgrade_now(database_url: str) -> None:
    """`upgrade` for callers without an event loop."""
    asyncio.run(upgrade(database_url))


async def schema_differences(store: Store) -> list[str]:
    """How the tables differ from those that this program writes to, in words. Raises StoreUnavailable."""
    async with store.reading() as transaction:
        return await transaction.execute_sync(_differences)


def _differences(connection: Connection) -> list[str]:
    found = compare_metadata(MigrationContext.configure(connection), SQLModel.metadata)
    return [_words(one) for step in found for one in (step if isinstance(step, list) else [step])]


def _words(step: Any) -> str:
    """One of Alembic's steps to what we want, told as what is the matter."""
    kind, what = str(step[0]), step[-1]
    match kind:
        case "add_table" | "remove_table":
            return f"table {what.name} {_OFF[kind[:3]]}"
        case "add_column" | "remove_column":
            return f"column {step[2]}.{what.name} {_OFF[kind[:3]]}"
        case "add_index" | "remove_index" | "add_constraint" | "remove_constraint":
            return f"{kind.partition('_')[2]} {what.name} {_OFF[kind[:3]]}"
        case _ if kind.startswith("modify_"):
            return f"column {step[2]}.{step[3]} has another {kind.removeprefix('modify_')}"
    return kind.replace("_", " ")
