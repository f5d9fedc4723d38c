"""Which schema a store has and whose it is: waited for, or refused when it is another version's or environment's.

Migrating is `ops.migrating`: no process that runs needs Alembic, a quarter of what it would load.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, column, inspect, select, table
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

from common.clock import monotonic_seconds
from common.crypto import TokenCipher
from common.errors import SettingsError, StoreUnavailable
from common.logs import get_logger
from common.settings import SiteSettings, SyncarooSettings
from common.store.engine import Store, Transaction
from common.store.insert import insert
from common.store.keys import check_keys
from schemas.tables import FactRow, table_of

MIGRATIONS = Path(__file__).parents[2] / "migrations"

LOUD_SECONDS = 30.0
"""By then `gateway setup` would be through, or say why not."""

SchemaState = Literal["ours", "none", "older", "newer"]

log = get_logger(__name__)
_facts = table_of(FactRow)
_version = table("alembic_version", column("version_num"))


@cache
def revisions() -> list[str]:
    """The schema versions that this code knows, the oldest first: the names of its migrations begin with them."""
    return sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def head_revision() -> str:
    """The schema version that this code speaks."""
    return revisions()[-1]


async def current_revision(store: Store) -> str | None:
    """The schema version that the store has; None when it is empty."""
    async with store.reading() as transaction:
        return await transaction.execute_sync(_revision)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_version.name):
        return None
    return connection.scalar(select(_version.c.version_num))


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
    return "older" if revision in revisions() else "newer"


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
