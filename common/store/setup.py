"""Bringing a store to this version's schema, and refusing one that is another environment's or another version's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

from common.clock import monotonic_seconds
from common.crypto import TokenCipher
from common.errors import SettingsError, StoreUnavailable
from common.logs import get_logger
from common.settings import SiteSettings, SyncarooSettings
from common.store.engine import Store, Transaction, is_passing
from common.store.insert import insert
from common.store.keys import check_keys
from schemas.tables import FactRow, SQLModel, table_of

MIGRATIONS = Path(__file__).parents[2] / "migrations"

LOUD_SECONDS = 30.0
"""By then `gateway setup` would be through, or say why not."""

SchemaState = Literal["ours", "none", "older", "newer"]
_OFF = {"add": "is missing", "rem": "is one too many"}

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

    A store that is away or not migrated yet is waited for with backoff, as `gateway setup` may be running; told once
    per kind of trouble, and once more, loudly, when it lasts. Then True, so that a caller can tell that it was not
    stopped before.

    Raises:
        SettingsError: the store has a newer schema, remembers another environment, or needs another key.
    """
    troubles = _Troubles()
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
                troubles.tell(str(error))
                raise
    return True


class _Troubles:
    """What a process waits for, told once per kind, and again when it has lasted for `LOUD_SECONDS`."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._loud: set[str] = set()

    def tell(self, reason: str) -> None:
        """Whenever it is met."""
        now = monotonic_seconds()
        if reason not in self._since:
            self._since[reason] = now
            log.warning("store.waiting", reason=reason)
        elif reason not in self._loud and now - self._since[reason] >= LOUD_SECONDS:
            self._loud.add(reason)
            log.error("store.still_waiting", reason=reason, seconds=round(now - self._since[reason]))


async def check_store(store: Store, facts: dict[str, str]) -> None:
    """Once, for a command: the store has our schema and belongs to this environment. Writes nothing.

    Raises:
        StoreUnavailable: it does not answer, is not there, or its schema is older.
        SettingsError: as above.
    """
    await check_schema(store)
    await check_facts(store, facts)


async def check_schema(store: Store) -> None:
    """Once, for a command: the store has our schema. Writes nothing.

    Raises:
        StoreUnavailable: it does not answer, is not there, or its schema is older.
        SettingsError: its schema is newer.
    """
    check_file(store)
    await _check_schema(store)


def check_file(store: Store) -> None:
    """A file that is not there: SQLite would make it, when asked. Raises StoreUnavailable."""
    if not store.postgres and not Path(store.url.database or "").exists():
        raise StoreUnavailable(f"store: there is no file {store.url.database}; run `gateway setup` where it is to be")


async def _check_schema(store: Store) -> None:
    found = await current_revision(store)
    match schema_state(found):
        case "newer":
            raise SettingsError(
                [f"DATABASE_URL: the store's schema ({found}) is newer than this program's; run the newer program"]
            )
        case "none":
            raise StoreUnavailable("store: it has no tables; run `gateway setup`")
        case "older":
            raise StoreUnavailable(
                f"store: its schema ({found}) is older than this program's ({head_revision()}); run `gateway setup`"
            )


def schema_state(revision: str | None) -> SchemaState:
    """How a store's schema stands to this program's; one that this program does not know is newer."""
    if revision is None:
        return "none"
    if revision == head_revision():
        return "ours"
    known = {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
    return "older" if revision in known else "newer"


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


async def check_facts(store: Store, facts: dict[str, str]) -> None:
    """The store belongs to this environment, or to none yet. Writes nothing.

    Raises:
        SettingsError: naming the settings that differ from what the store remembers.
        StoreUnavailable.
    """
    async with store.reading() as transaction:
        _refuse_others(await _known(transaction), facts)


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
