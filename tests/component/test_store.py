"""common.store on both databases: the traps D of RELIABILITY §2.4, leadership, the environment, migrations."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, select, text, update
from structlog.testing import capture_logs

from common.errors import Permanent, SettingsError, StoreUnavailable
from common.store import engine
from common.store.engine import Store, Transaction
from common.store.leader import FROZEN_SECONDS, PULSE_SECONDS, Leadership
from common.store.parked import Parked, list_parked, park
from common.store.schema import current_revision, head_revision, revisions, wait_for_store
from common.store.targets import Wanted, want
from ops.migrating import alembic_config, upgrade
from schemas.messages import PlatformIds
from schemas.tables import FactRow, SQLModel, TargetRow, UserRow, table_of
from tests.component.conftest import Fill, lock_waiters
from tests.fixtures.database import ON_POSTGRESQL, ON_SQLITE
from tests.waiting import until, within

FACTS = {"SYNCAROO_BASE_URL": "https://app.syncaroo.com", "EVENT_SOURCE": "https://yourapp.com"}

_fact = table_of(FactRow)
_target = table_of(TargetRow)
_user = table_of(UserRow)


async def put(store: Store, name: str, value: str) -> None:
    async with store.transaction() as transaction:
        await transaction.execute(_fact.insert().values(name=name, value=value))


async def get(store: Store, name: str) -> str | None:
    async with store.reading() as transaction:
        row = await transaction.row(select(_fact.c.value).where(_fact.c.name == name))
    return None if row is None else str(row.value)


async def add_one(store: Store) -> None:
    async with store.transaction() as transaction:
        # As the stages read what they are going to change: locked, where the database locks rows.
        row = await transaction.row(select(_fact.c.value).where(_fact.c.name == "n").with_for_update())
        assert row is not None
        await asyncio.sleep(0)
        await transaction.execute(update(_fact).where(_fact.c.name == "n").values(value=str(int(row.value) + 1)))


# --- D1, D2: nothing gets lost ----------------------------------------------------------------------------------------


async def test_no_update_gets_lost(store: Store, other: Store) -> None:
    """D1: without BEGIN IMMEDIATE 141 of 160 vanish on SQLite, silently."""
    await put(store, "n", "0")

    async def twenty(number: int) -> None:
        for _ in range(20):
            await add_one(store if number % 2 else other)

    await asyncio.gather(*map(twenty, range(8)))
    assert await get(store, "n") == "160"


_WRITER = """
import asyncio, sys
from sqlalchemy import text
from common.store.engine import Store

async def main():
    store = Store(sys.argv[1])
    for _ in range(20):
        async with store.transaction() as transaction:
            row = await transaction.row(text("SELECT value FROM fact WHERE name = 'n'"))
            await asyncio.sleep(0)
            await transaction.execute(text("UPDATE fact SET value = :v"), {"v": str(int(row.value) + 1)})
    await store.close()

asyncio.run(main())
"""


@ON_SQLITE
async def test_no_update_gets_lost_between_processes(store: Store, database_url: str) -> None:
    """D1: two processes. PostgreSQL locks rows in the server, whoever asks."""
    await put(store, "n", "0")
    ended = await asyncio.gather(*(_python(_WRITER, database_url) for _ in range(2)))
    assert ended == [0, 0]
    assert await get(store, "n") == "40"


async def _python(program: str, *arguments: str) -> int:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, *arguments)
    return await process.wait()


@ON_SQLITE
async def test_a_writer_that_ignores_our_lock_gets_nothing_between_read_and_write(
    store: Store, database_url: str
) -> None:
    """D1: BEGIN IMMEDIATE locks before the first SELECT, also against programs that are not ours."""
    await put(store, "n", "0")
    with closing(sqlite3.connect(database_url.partition("///")[2], isolation_level=None, timeout=0)) as foreign:
        async with store.transaction() as transaction:
            await transaction.row(select(_fact.c.value))
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                foreign.execute("UPDATE fact SET value = '7'")
        foreign.execute("UPDATE fact SET value = '7'")
    assert await get(store, "n") == "7"


async def test_one_of_many_conditional_updates_wins(store: Store, other: Store) -> None:
    """D2: how codes and leases are taken."""
    await put(store, "code", "unused")

    async def redeem(number: int) -> bool:
        async with (store, other)[number % 2].transaction() as transaction:
            row = await transaction.row(
                update(_fact)
                .where(_fact.c.name == "code", _fact.c.value == "unused")
                .values(value=str(number))
                .returning(_fact.c.value)
            )
        return row is not None

    assert sum(await asyncio.gather(*map(redeem, range(30)))) == 1


async def test_numbers_ascend_and_are_unique(store: Store, other: Store) -> None:
    """The store's sequence orders what happened in all processes."""
    taken: list[int] = []

    async def take(number: int) -> None:
        last = 0
        for count in (1, 3, 2):
            async with (store, other)[number % 2].transaction() as transaction:
                numbers = await transaction.numbers(count)
            assert numbers == sorted(numbers)
            assert numbers[0] > last
            last = numbers[-1]
            taken.extend(numbers)

    await asyncio.gather(*map(take, range(8)))
    assert len(set(taken)) == len(taken) == 48


async def test_an_error_rolls_everything_back(store: Store) -> None:
    async def fail() -> None:
        async with store.transaction() as transaction:
            await transaction.execute(_fact.insert().values(name="a", value="1"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await get(store, "a") is None


# --- D6: times --------------------------------------------------------------------------------------------------------


async def test_times_come_back_aware_and_in_utc(store: Store) -> None:
    """D6: SQLite gives naive ones."""
    there = datetime(2026, 3, 29, 3, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    async with store.transaction() as transaction:
        await transaction.execute(_user.insert().values(user_id="1", created_at=there))
        row = await transaction.row(select(_user.c.created_at))
        now = await transaction.now()
    assert row is not None
    assert (row.created_at, row.created_at.utcoffset()) == (there, timedelta(0))
    assert now.utcoffset() == timedelta(0)
    async with store.reading() as transaction:
        for moment, found in ((there, 1), (there + timedelta(microseconds=1), 0)):
            rows = await transaction.rows(select(_user).where(_user.c.created_at >= moment))
            assert len(rows) == found, "compared as moments, not as texts of different offsets"


async def test_a_naive_time_never_gets_in(store: Store) -> None:
    async def put_naive() -> None:
        async with store.transaction() as transaction:
            naive = datetime(2026, 1, 1)  # noqa: DTZ001  # that is the point
            await transaction.execute(_user.insert().values(user_id="1", created_at=naive))

    with pytest.raises(Exception, match="naive"):
        await put_naive()


# --- D7, D8, D11: what cannot be stored, and what errors tell ---------------------------------------------------------


@pytest.mark.parametrize("value", ["s3cret\0x", "s3cret\ud800", "s3cret"])
async def test_errors_never_tell_the_values(store: Store, value: str) -> None:
    """D7: neither SQLAlchemy's text nor the driver's, along the whole chain of causes."""
    caught: BaseException | None = None
    try:
        async with store.transaction() as transaction:
            await transaction.execute(text("INSERT INTO fact (name, value) VALUES (:v, :v), (:v, :v)"), {"v": value})
    except Exception as error:  # noqa: BLE001  # whichever it is
        caught = error
    assert caught is not None
    while caught is not None:
        assert "s3cret" not in str(caught) + repr(caught)
        caught = caught.__cause__ or (None if caught.__suppress_context__ else caught.__context__)


@pytest.mark.parametrize(
    ("connection_id", "location_id"), [(2**63, "x"), (1, "a\ud800b"), (1, "a\0b")], ids=["int", "surrogate", "nul"]
)
async def test_what_no_database_holds_is_final(store: Store, connection_id: int, location_id: str) -> None:
    """D11, T-DB-BADDATA: parked at once, not tried again for days. SQLite does hold a NUL."""

    async def mark() -> None:
        async with store.transaction() as transaction:
            mapping = PlatformIds(location_id=location_id)
            await want(transaction, [Wanted(connection_id, "https://x/a", mapping, "webhook", "d")])

    if "\0" in location_id and not store.postgres:
        await mark()
        async with store.reading() as transaction:
            assert [row.location_id for row in await transaction.rows(select(_target))] == [location_id]
        return
    with pytest.raises(Permanent, match="unstorable"):
        await mark()
    await put(store, "still", "usable")


async def test_bodies_may_hold_anything(store: Store) -> None:
    """What is parked is kept as it came, byte for byte."""
    body = bytes(range(256))
    async with store.transaction() as transaction:
        await park(transaction, [Parked("q", "r", None, "k", "S", body, 0)])
        (found,) = await list_parked(transaction)
    assert found.body == body


# --- D9: cancellation -------------------------------------------------------------------------------------------------


async def test_cancellation_anywhere_leaves_the_store_usable(store: Store) -> None:
    """D9: before, within and at the end of a transaction; more often than the pool has connections."""
    await put(store, "n", "0")
    for turn in range(30):
        task = asyncio.create_task(add_one(store))
        for _ in range(turn):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    before = await get(store, "n")
    assert before is not None
    async with within(3):
        await add_one(store)
    assert await get(store, "n") == str(int(before) + 1)


async def test_waiting_for_a_transaction_can_be_cancelled(store: Store) -> None:
    """D9: while another holds the lock."""
    await put(store, "n", "0")
    async with store.transaction() as transaction:
        await transaction.execute(update(_fact).values(value="5"))
        waiting = asyncio.create_task(add_one(store))
        await until(lambda: lock_waiters(store), what="the other to wait for the lock")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await add_one(store)
    assert await get(store, "n") == "6"


# --- the store is away ------------------------------------------------------------------------------------------------


async def test_a_full_disk_is_unavailable_and_leaves_nothing_half_written(disk: tuple[Store, Fill]) -> None:
    """D12, T-DB-FULL."""
    store, fill = disk
    large = random.Random(3).randbytes(500_000).hex()  # no database packs it into much less

    async def write() -> None:
        async with store.transaction() as transaction:
            await transaction.execute(_fact.insert().values(name="first", value="1"))
            await transaction.execute(_fact.insert().values(name="second", value=large))

    await put(store, "before", "1")  # the table has a page that is not full: the first row is taken
    with fill(store), pytest.raises(StoreUnavailable):
        await write()
    assert await get(store, "first") is None
    await write()
    assert await get(store, "first") == "1"


@ON_SQLITE
async def test_a_locked_store_is_unavailable_in_bounded_time(store: Store, database_url: str) -> None:
    """T-DB-BUSY: somebody else's lock, which ours knows nothing of."""
    await put(store, "n", "0")
    with closing(sqlite3.connect(database_url.partition("///")[2], isolation_level=None)) as foreign:
        foreign.execute("BEGIN EXCLUSIVE")
        async with asyncio.timeout(7):
            assert await get(store, "n") == "0", "reading waits for no writer"
            with pytest.raises(StoreUnavailable):
                await add_one(store)
        foreign.execute("ROLLBACK")
    await add_one(store)


@ON_POSTGRESQL
async def test_a_locked_row_is_unavailable_in_bounded_time(store: Store, hasty: Store) -> None:
    """T-DB-BUSY: what another connection holds is waited for so long and no longer; by `hasty` for less."""
    await put(store, "n", "0")
    async with store.transaction() as foreign:
        row = await foreign.row(text("SHOW lock_timeout"))
        assert row is not None
        assert row[0] == "10s"
        await foreign.execute(update(_fact).values(value="5"))
        assert await get(hasty, "n") == "0", "reading waits for no writer"
        with pytest.raises(StoreUnavailable):
            await add_one(hasty)
    await add_one(hasty)
    assert await get(store, "n") == "6"


@ON_POSTGRESQL
async def test_a_connection_killed_in_a_transaction_is_unavailable_and_rolled_back(store: Store, other: Store) -> None:
    """T-DB-DOWN: `pg_terminate_backend`; the next transaction works again."""

    async def be_killed() -> None:
        async with store.transaction() as transaction:
            await transaction.execute(_fact.insert().values(name="a", value="1"))
            await _terminate(other, transaction)
            await transaction.execute(_fact.insert().values(name="b", value="1"))

    with pytest.raises(StoreUnavailable):
        await be_killed()
    assert await get(store, "a") is None
    await put(store, "a", "2")


async def _terminate(by: Store, victim: Transaction) -> None:
    row = await victim.row(text("SELECT pg_backend_pid()"))
    assert row is not None
    async with by.transaction() as transaction:
        await transaction.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": row[0]})


@ON_POSTGRESQL
async def test_pooled_connections_that_died_meanwhile_do_not_show(store: Store, other: Store) -> None:
    """A restarted server costs nobody a transaction, save who asks before its end is heard."""
    await put(store, "a", "1")
    pool: Any = store._engine.sync_engine.pool
    [pooled] = pool._pool._queue._queue
    async with other.transaction() as transaction:
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        await transaction.execute(text(f"{kill} AND pid <> pg_backend_pid()"))
    await until(pooled.driver_connection.is_closed)
    assert await get(store, "a") == "1"


@ON_POSTGRESQL
async def test_a_connection_that_has_rested_is_asked_before_it_is_used(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network may have dropped it without a word."""
    await put(store, "a", "1")
    pool: Any = store._engine.sync_engine.pool
    [pooled] = pool._pool._queue._queue
    asked = []

    def no_answer(connection: Any) -> None:
        asked.append(connection)
        raise store._engine.dialect.loaded_dbapi.OperationalError("no answer")

    monkeypatch.setattr(store._engine.dialect, "do_ping", no_answer)
    assert await get(store, "a") == "1"
    assert not asked, "it has just been used"
    pooled.info["rests_since"] -= engine.RESTED_SECONDS
    assert await get(store, "a") == "1", "on another connection"
    assert len(asked) == 1


async def test_a_schema_that_is_not_there_yet_is_unavailable(store: Store) -> None:
    """T-START-ORDER: also one that is older. On PostgreSQL the ingress, which does not wait for it, once died of it."""
    for statement in ("SELECT 1 FROM not_there_yet", "SELECT not_there_yet FROM fact"):
        for transaction in (store.transaction, store.reading):
            with pytest.raises(StoreUnavailable, match=r"a table or column is missing.*gateway setup"):
                async with transaction() as begun:
                    await begun.execute(text(statement))


@ON_POSTGRESQL
async def test_a_plan_from_before_a_migration_passes(store: Store, other: Store) -> None:
    """A rolling upgrade: the schema changes under connections that are in use. SQLite looks at it each time."""

    async def read() -> int:
        async with store.transaction() as begun:
            return len(await begun.rows(text("SELECT * FROM fact")))

    await put(store, "a", "1")
    assert await read() == 1
    async with other.transaction() as migration:
        await migration.execute(text("ALTER TABLE fact ADD COLUMN later text"))
    with pytest.raises(StoreUnavailable):
        await read()
    assert await read() == 1


async def test_a_database_that_is_not_there_is_unavailable(database_url: str) -> None:
    away = "postgresql+asyncpg://nobody@127.0.0.1:1/x" if "postgresql" in database_url else "sqlite+aiosqlite:////no/x"
    store = Store(away)
    for transaction in (store.transaction, store.reading):
        with pytest.raises(StoreUnavailable):
            async with transaction():
                pass
    with pytest.raises(StoreUnavailable):
        await upgrade(away)
    with pytest.raises(StoreUnavailable):
        await Leadership(store, "relay").held()
    await store.close()


@dataclass
class Watch:
    """A clock that stands until it is moved."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


# --- one of many ------------------------------------------------------------------------------------------------------


async def test_one_leads_and_the_next_takes_over(store: Store, other: Store) -> None:
    """T-OUT-TWO: one active relay."""
    first, second = Leadership(store, "relay"), Leadership(other, "relay")
    assert await first.held()
    assert await first.held()
    assert not await second.held()
    third = Leadership(other, "another")
    assert await third.held(), "roles do not disturb each other"
    await third.release()
    await first.release()
    assert await second.held()
    assert not await first.held()
    await second.release()


@ON_POSTGRESQL
async def test_a_leader_whose_session_was_killed_loses_the_lead(store: Store, other: Store) -> None:
    first, second = Leadership(store, "relay"), Leadership(other, "relay")
    assert await first.held()
    async with other.transaction() as transaction:
        await transaction.execute(text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"))
    with pytest.raises(StoreUnavailable):
        await first.held()
    await until(second.held)
    assert not await first.held()
    await second.release()


async def test_a_frozen_leader_is_replaced_and_finds_out(store: Store, other: Store) -> None:
    """A process that is stopped keeps its lock; without a pulse for 15 s of the other's own watch it loses it."""
    frozen_clock, watch = Watch(), Watch()
    frozen, standby = Leadership(store, "relay", frozen_clock), Leadership(other, "relay", watch)
    assert await frozen.held()
    for _ in range(3):  # it leads, and shows it
        assert not await standby.held()
        watch.seconds += FROZEN_SECONDS - 1
        frozen_clock.seconds += PULSE_SECONDS
        assert await frozen.held()
    assert not await standby.held()
    watch.seconds += FROZEN_SECONDS
    assert not await standby.held(), "it is taken from the other first"
    await until(standby.held)
    if store.postgres:
        with pytest.raises(StoreUnavailable):
            await frozen.held()
    assert not await frozen.held()
    watch.seconds += FROZEN_SECONDS
    assert await standby.held()
    await standby.release()
    assert await frozen.held()
    await frozen.release()


async def test_a_leader_that_is_frozen_before_its_first_pulse_is_replaced(store: Store, other: Store) -> None:
    frozen, watch = Leadership(store, "relay"), Watch()
    standby = Leadership(other, "relay", watch)
    assert await frozen._has_lock()
    assert not await standby.held()
    watch.seconds += FROZEN_SECONDS
    assert not await standby.held(), "it is taken from the other first"
    await until(standby.held)
    await standby.release()
    await frozen.release()


async def test_where_nobody_can_write_nobody_is_frozen(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the lead would go round while a disk is full, and every leader would publish the same again."""
    frozen, watch = Leadership(store, "relay"), Watch()
    standby = Leadership(other, "relay", watch)
    assert await frozen.held()

    def full(_: Store) -> None:
        raise StoreUnavailable("store: as ordered")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "transaction", full)
        assert not await standby.held()
        watch.seconds += FROZEN_SECONDS
        with pytest.raises(StoreUnavailable):
            await standby.held()
    assert await frozen.held()
    assert not await standby.held(), "it begins to watch anew"
    await frozen.release()


async def test_whoever_stands_by_waits_for_a_whole_silence_of_the_next_leader_too(store: Store, other: Store) -> None:
    """The pulse of one who led long ago says nothing about who leads now."""
    first, watch = Leadership(store, "relay"), Watch()
    standby = Leadership(other, "relay", watch)
    assert await first.held()
    assert not await standby.held()
    await first.release()
    watch.seconds += FROZEN_SECONDS
    assert await first.held(), "with a new pulse"
    assert not await standby.held()
    assert not await standby.held()
    assert await first.held()
    await first.release()


# --- the environment --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FACTS))
async def test_another_environment_on_the_same_store_is_refused(store: Store, name: str) -> None:
    """CONTRACT §2: names the setting, not its value; what differs is not written."""
    await wait_for_store(store, FACTS)
    await wait_for_store(store, FACTS)
    with pytest.raises(SettingsError) as caught:
        await wait_for_store(store, {**FACTS, name: "https://s3cret.test"})
    (line,) = caught.value.faults
    assert line.startswith(f"{name}: ")
    assert "s3cret" not in line
    assert await get(store, name) == FACTS[name]


async def _set_revision(store: Store, revision: str) -> None:
    async with store.transaction() as transaction:
        await transaction.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": revision})


async def test_a_newer_schema_is_refused(store: Store) -> None:
    """A rolled back program must not write into what it does not know."""
    await _set_revision(store, "9999")
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        await wait_for_store(store, FACTS)


@pytest.mark.parametrize(
    ("revision", "reason"), [(None, "no tables"), (revisions()[-2], "older")], ids=["none", "older"]
)
async def test_an_older_schema_is_waited_for(empty_database_url: str, revision: str | None, reason: str) -> None:
    """`gateway setup` may come later than the workers; before it there is another one's schema, or none."""
    store = Store(empty_database_url)
    if revision is not None:
        async with store.transaction() as transaction:
            await transaction.execute_sync(_alembic(command.upgrade, revision))
    with capture_logs() as logs:
        waiting = asyncio.create_task(wait_for_store(store, FACTS))
        await until(lambda: logs or waiting.done(), what="it to say that it waits")
    assert [line["event"] for line in logs] == ["store.waiting"]
    assert reason in logs[0]["reason"]
    assert not waiting.done()
    await upgrade(empty_database_url)
    async with within(10):
        assert await waiting
    await store.close()


# --- migrations -------------------------------------------------------------------------------------------------------


async def test_the_migrated_schema_is_the_tables(store: Store) -> None:
    """T-MIGRATE: what the code believes and what the migrations made."""

    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, SQLModel.metadata))

    async with store.reading() as transaction:
        assert await transaction.execute_sync(differences) == []
        assert await transaction.execute_sync(lambda connection: len(inspect(connection).get_table_names())) > 10
    assert await current_revision(store) == head_revision()


async def test_setups_at_once_and_again_change_nothing(empty_database_url: str) -> None:
    """CONTRACT §1: any number of times, also at the same time."""
    await asyncio.gather(*(upgrade(empty_database_url) for _ in range(3)))
    store = Store(empty_database_url)
    await put(store, "a", "1")
    await upgrade(empty_database_url)
    assert await get(store, "a") == "1"
    await store.close()


def _alembic(what: Callable[..., None], revision: str) -> Callable[[Connection], None]:
    def run(connection: Connection) -> None:
        config = alembic_config()
        config.attributes["connection"] = connection
        what(config, revision)

    return run


async def test_a_migration_that_dies_half_way_leaves_nothing(empty_database_url: str) -> None:
    """Else the next `gateway setup` would stumble over half a schema."""
    store = Store(empty_database_url)

    def die(connection: Connection) -> None:
        _alembic(command.upgrade, "head")(connection)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        async with store.transaction() as transaction:
            await transaction.execute_sync(die)
    assert await current_revision(store) is None
    await upgrade(empty_database_url)
    assert await current_revision(store) == head_revision()
    await store.close()


async def test_migrations_can_be_taken_back(store: Store, database_url: str) -> None:
    async with store.transaction() as transaction:
        await transaction.execute_sync(_alembic(command.downgrade, "base"))
        tables = await transaction.execute_sync(lambda connection: inspect(connection).get_table_names())
    assert tables == ["alembic_version"]
    await upgrade(database_url)
    async with store.transaction() as transaction:
        assert await transaction.number() == 1
