"""Bringing a store to this version's schema, and refusing one that is another environment's or another version's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

from common.crypto import TokenCipher
from common.errors import SettingsError, StoreUnavailable
from common.logs import get_logger
from common.settings import SiteSettings, SyncarooSettings
from common.store.engine import Store, Transaction, is_passing
from common.store.insert import insert
from common.store.keys import check_keys
from schemas.tables import FactRow, table_of

MIGRATIONS = Path(__file__).parents[2] / "migrations"

log = get_logger(__name__)
_facts = table_of(FactRow)


def alembic_config() -> Config:
    """Alembic's configuration, in code: the project has no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def head_revision() -> str:
    """The schema version that this code speaks."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert head is not None
    return head


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
            raise StoreUnavailable(f"store: {type(error).__name__}") from error
        raise
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":  # two setups at once take turns, as the file lock lets them on SQLite
        connection.execute(text("SELECT pg_advisory_xact_lock(7264017)"))
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def current_revision(store: Store) -> str | None:
    """The schema version that the store has; None when it is empty."""
    async with store.reading() as transaction:
        return await transaction.execute_sync(_revision)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def facts_of(site: SiteSettings, syncaroo: SyncarooSettings) -> dict[str, str]:
    """What a store remembers of the environment that it belongs to, by the settings' names."""
    return {"SYNCAROO_BASE_URL": syncaroo.syncaroo_base_url, "EVENT_SOURCE": site.source}


async def wait_for_store(store: Store, facts: dict[str, str], cipher: TokenCipher | None = None) -> bool:
    """Wait until the store answers and has our schema; then check that it belongs to this environment, and that the
    cipher of who needs Syncaroo's tokens opens them.

    A store that is away or not migrated yet is waited for with backoff, told once per kind of trouble; then True, so
    that a caller can tell that it was not stopped before.

    Raises:
        SettingsError: the store has a newer schema, remembers another environment, or needs another key.
    """
    told: set[str] = set()
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(StoreUnavailable), wait=wait_exponential(multiplier=0.2, max=5)
    ):
        with attempt:
            try:
                await _check_schema(store)
                await remember(store, facts)
                if cipher is not None:
                    await check_keys(store, cipher)
            except StoreUnavailable as error:
                if str(error) not in told:
                    told.add(str(error))
                    log.warning("store.waiting", reason=str(error))
                raise
    return True


async def check_store(store: Store, facts: dict[str, str]) -> None:
    """Once, for a command: the store has our schema and belongs to this environment. Writes nothing.

    Raises:
        StoreUnavailable: it does not answer, is not there, or its schema is older.
        SettingsError: as above.
    """
    _check_file(store)
    await _check_schema(store)
    async with store.reading() as transaction:
        _refuse_others(await _known(transaction), facts)


def _check_file(store: Store) -> None:
    """SQLite would make it, when asked."""
    if not store.postgres and not Path(store.url.database or "").exists():
        raise StoreUnavailable(f"store: there is no file {store.url.database}; run `gateway setup` where it is to be")


async def _check_schema(store: Store) -> None:
    found, wanted = await current_revision(store), head_revision()
    if found == wanted:
        return
    known = {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
    if found is not None and found not in known:
        raise SettingsError(["DATABASE_URL: the store's schema is newer than this program; run the newer program"])
    what = "it has no tables" if found is None else "the schema is older than this program"
    raise StoreUnavailable(f"store: {what}; run `gateway setup`")


async def remember(store: Store, facts: dict[str, str]) -> None:
    """Write each fact the first time, and refuse a different one ever after.

    Raises:
        SettingsError: naming the settings that differ from what the store remembers.
    """
    async with store.transaction() as transaction:
        known = await _known(transaction)
        _refuse_others(known, facts)
        fresh = [{"name": name, "value": value} for name, value in facts.items() if name not in known]
        if fresh:
            await transaction.execute(insert(transaction, _facts).on_conflict_do_nothing(), fresh)


async def _known(transaction: Transaction) -> dict[str, Any]:
    return {row.name: row.value for row in await transaction.rows(select(_facts))}


def _refuse_others(known: dict[str, Any], facts: dict[str, str]) -> None:
    faults = [
        f"{name}: this store belongs to an environment with another {name}; use that one or another DATABASE_URL"
        for name, value in facts.items()
        if known.get(name, value) != value
    ]
    if faults:
        raise SettingsError(faults)


def upgrade_now(database_url: str) -> None:
    """`upgrade` for callers without an event loop."""
    asyncio.run(upgrade(database_url))
