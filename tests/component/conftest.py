"""What tests of stores share: a store on each database, as one process sees it, as another does, and on a full disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, text

from common.store.engine import Store
from common.store.leader import Leadership
from tests.fixtures.database import KINDS, migrate
from tests.fixtures.disk import filled, small_disk
from tests.fixtures.postgresql import database, execute, private_server, run, spare_user

Fill = Callable[[Store], AbstractContextManager[None]]
"""How the disk under a store is filled, until the end of the block."""


class StandBy(Leadership):
    """Counts how often it has asked whether it leads: who has twice has had its chance."""

    asked = 0

    async def held(self) -> bool:
        self.asked += 1
        return await super().held()


async def lock_waiters(store: Store) -> int:
    """How many wait for a lock: sessions of the database on PostgreSQL, tasks that share this store on SQLite."""
    if store._lock is not None:
        return len(store._lock._tasks._waiters or ())
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with store.reading() as transaction:
        return int((await transaction.execute(text(waiting))).scalar_one())


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """On a database of this test's own."""
    opened = Store(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Store]:
    """A second process's view of the same database."""
    opened = Store(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def hasty(database_url: str) -> AsyncIterator[Store]:
    """A process that waits for locks for a moment, not for seconds."""
    opened = Store(database_url)
    engine = opened._engine.sync_engine
    if opened.postgres:
        event.listen(engine, "begin", lambda one: one.exec_driver_sql("SET LOCAL lock_timeout = '200ms'"))
    else:
        event.listen(engine, "connect", lambda one, _record: one.execute("PRAGMA busy_timeout=200"))
    yield opened
    await opened.close()


@pytest.fixture(params=KINDS)
def _disk_of_its_own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Fill]]:
    """`DATABASE_URL` of a database that has the schema, and how its disk is filled."""
    if request.param == "sqlite":
        made = _sqlite(tmp_path)
    else:
        made = _postgresql(request.getfixturevalue("postgresql_binaries"))
    with made as (url, fill):
        migrate(url)
        yield url, fill


@pytest.fixture
async def disk(_disk_of_its_own: tuple[str, Fill]) -> AsyncIterator[tuple[Store, Fill]]:
    """A store, and how its disk is filled."""
    url, fill = _disk_of_its_own
    opened = Store(url)
    yield opened, fill
    await opened.close()


@contextmanager
def _sqlite(directory: Path) -> Iterator[tuple[str, Fill]]:
    """`max_page_count` stands for the disk: needs no rights."""
    yield f"sqlite+aiosqlite:///{directory / 'gateway.db'}", _no_more_pages


@contextmanager
def _no_more_pages(store: Store) -> Iterator[None]:
    pages = 1  # as many as there are

    @event.listens_for(store._engine.sync_engine, "begin")
    def _limit(connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    yield
    pages = 10_000_000


@contextmanager
def _postgresql(programs: Path) -> Iterator[tuple[str, Fill]]:
    """A server of our own, as another's disk is not ours to fill; its tables, but not its log, are on a small one."""
    with small_disk(megabytes=24) as folder, private_server(programs) as server:
        shutil.chown(folder, spare_user() or os.geteuid())
        run(execute(server, f"CREATE TABLESPACE small LOCATION '{folder}'"))
        run(execute(server, "ALTER ROLE postgres SET default_tablespace = small"))
        with database(server, "gateway_test") as url:
            yield url, lambda _: filled(folder)
