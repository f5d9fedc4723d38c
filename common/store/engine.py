"""Transactions, the store's clock and the store's sequence.

Writing transactions on SQLite are serialised by `flock` on a side file, then `BEGIN IMMEDIATE`: without the first,
writers of several processes starve each other; without the second, updates get lost.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from threading import Thread
from typing import Any, TypeVar
from weakref import WeakSet

import aiosqlite
from sqlalchemy import Connection, CursorResult, Executable, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from common.clock import utc_now
from common.errors import Permanent, StoreUnavailable

T = TypeVar("T")

LOCK_SECONDS = 5.0
CLOSE_SECONDS = 2.0
POOL_SIZE = 10
RESTED_SECONDS = 10.0
"""After so long in the pool a connection is asked whether it still leads anywhere: a network may have dropped it."""

_AUTOCOMMIT: Mapping[str, Any] = {"isolation_level": "AUTOCOMMIT"}

_MISSING_STATES = ("42703", "42P01")
"""A column, a table."""
_PASSING_STATES = ("08", "0A000", "25006", "40", *_MISSING_STATES, "53", "55", "57", "58")
"""SQLSTATE classes that pass by themselves: connection, a plan made before a migration, read-only, rollback, what a
migration has yet to make, resources, locks, shutdown, system."""
_UNSTORABLE_STATES = ("22", "54")
"""SQLSTATE classes of values that are wrong for ever: out of range or of no encoding, too long for an index."""


class Transaction:
    """One transaction. Statements raise `StoreUnavailable` when the store is away, `Permanent` (`unstorable`) for a
    value that it can never hold; other errors are bugs."""

    def __init__(self, connection: AsyncConnection, *, postgres: bool) -> None:
        self._connection = connection
        self.postgres = postgres

    async def execute(self, statement: Executable, values: Any = None) -> CursorResult[Any]:
        """Run one Core statement; a list of `values` is an executemany.

        Raises:
            Permanent: `unstorable`, such as a NUL or a number over 64 bits.
        """
        try:
            return await self._connection.execute(statement, values)
        except (DBAPIError, OverflowError, UnicodeEncodeError) as error:
            if is_unstorable(error):
                # Without the cause: the drivers print the value.
                raise Permanent("unstorable", "the database cannot hold a value in it") from None
            _forget_values(error)
            raise

    async def execute_sync(self, ask: Callable[[Connection], T]) -> T:
        """Run a function that needs SQLAlchemy's synchronous connection."""
        return await self._connection.run_sync(ask)

    async def rows(self, statement: Executable, values: Any = None) -> Sequence[Any]:
        """All rows of a query."""
        return (await self.execute(statement, values)).fetchall()

    async def row(self, statement: Executable, values: Any = None) -> Any | None:
        """The first row of a query, or None."""
        return (await self.execute(statement, values)).first()

    async def now(self) -> datetime:
        """The store's clock (aware UTC): the only one whose readings are compared."""
        if not self.postgres:
            return utc_now()  # a file's clock is its host's
        moment: datetime = (await self._connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
        return moment.astimezone(UTC)

    async def number(self) -> int:
        """The next number of the store's sequence."""
        return (await self.numbers(1))[0]

    async def numbers(self, count: int) -> list[int]:
        """The next `count` numbers, ascending."""
        if self.postgres:
            query = text("SELECT nextval('number') FROM generate_series(1, :count)")
            return [row[0] for row in await self.rows(query, {"count": count})]
        query = text("UPDATE sequence SET value = value + :count WHERE name = 'number' RETURNING value")
        last: int = (await self.execute(query, {"count": count})).scalar_one()
        return list(range(last - count + 1, last + 1))

    async def stamps(self, count: int) -> tuple[datetime, list[int]]:
        """The store's time, and its next `count` numbers (one at least), in one question."""
        if not self.postgres:
            return await self.now(), await self.numbers(count)
        query = text("SELECT clock_timestamp(), nextval('number') FROM generate_series(1, :count)")
        rows = await self.rows(query, {"count": count})
        return rows[0][0].astimezone(UTC), [row[1] for row in rows]


class Store:
    """A database. Nothing connects before the first transaction."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.postgres = self.url.get_backend_name() == "postgresql"
        self._threads: WeakSet[Thread] = WeakSet()
        self._engine = _postgres_engine(url) if self.postgres else _sqlite_engine(url, self._threads)
        self._lock = None if self.postgres else FileLock(f"{self.url.database}.lock")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A transaction that may write; commits at the end, rolls back on any error.

        Raises:
            StoreUnavailable: the store is away, locked for over 5 s, full or read-only.
        """
        async with self._locked(), self._begun({}) as transaction:
            yield transaction

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Transaction]:
        """A transaction that only reads: on SQLite it waits for no writer.

        On PostgreSQL each statement sees what is committed by then, as it would in any transaction here; so it is
        spared the two calls that begin and end one.

        Raises:
            StoreUnavailable: as above.
        """
        async with self._begun(_AUTOCOMMIT if self.postgres else {"gateway_reading": True}) as transaction:
            yield transaction

    async def number(self) -> int:
        """The next number of the store's sequence, for good: no transaction takes it back."""
        return (await self.numbers(1))[0]

    async def numbers(self, count: int) -> list[int]:
        """The next `count` numbers, as well."""
        begun = self._begun(_AUTOCOMMIT) if self.postgres else self.transaction()
        async with begun as transaction:
            return await transaction.numbers(count)

    async def session(self) -> AsyncConnection:
        """A connection for what lasts longer than a transaction (advisory locks); autocommits, the caller closes it."""
        connection = await self._engine.connect()
        return await connection.execution_options(**_AUTOCOMMIT)

    async def close(self) -> None:
        """Close all connections, also those that were given up in the middle of a statement.

        SQLite's are threads that answer to this event loop: it must not end before them.
        """
        await self._engine.dispose()
        for thread in list(self._threads):
            await asyncio.to_thread(thread.join, CLOSE_SECONDS)

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        if self._lock is None:
            yield
            return
        async with self._lock.held(LOCK_SECONDS):
            yield

    @asynccontextmanager
    async def _begun(self, options: Mapping[str, Any]) -> AsyncIterator[Transaction]:
        try:
            async with self._engine.connect() as connection:
                await connection.execution_options(**options)
                async with connection.begin():
                    yield Transaction(connection, postgres=self.postgres)
        except (SQLAlchemyError, OSError) as error:
            if is_passing(error):
                raise unavailable(error) from error
            raise


class FileLock:
    """An exclusive lock between tasks and processes on one host; freed by the kernel when its holder dies."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._tasks = asyncio.Lock()

    @asynccontextmanager
    async def held(self, seconds: float) -> AsyncIterator[None]:
        """Hold it.

        Raises:
            StoreUnavailable: nobody let go of it for `seconds`.
        """
        try:
            async with asyncio.timeout(seconds) as budget:
                async with self._tasks:
                    descriptor = await self._acquire()
                    budget.reschedule(None)
                    try:
                        yield
                    finally:
                        os.close(descriptor)
        except TimeoutError as error:
            raise StoreUnavailable("store: locked by another process") from error
        except OSError as error:
            raise StoreUnavailable(f"store: {error.strerror}") from error

    async def _acquire(self) -> int:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not try_flock(descriptor):  # noqa: ASYNC110  # the kernel wakes nobody: other processes hold it
                await asyncio.sleep(0.002)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def try_flock(descriptor: int) -> bool:
    """Lock the open file for this process, if nobody else holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def is_passing(error: BaseException) -> bool:
    """Whether the store's trouble passes by itself: away, not migrated yet, locked, deadlocked, full, shutting down."""
    if isinstance(error, OSError | TimeoutError | PoolTimeout):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    state = _state_of(error)
    if state is not None:
        return state.startswith(_PASSING_STATES)
    return isinstance(error, OperationalError | InterfaceError)


def unavailable(error: BaseException) -> StoreUnavailable:
    """What to raise for trouble that passes; where a person has to do something first, it says what."""
    if _is_missing(error):
        return StoreUnavailable(
            "store: a table or column is missing: another version's schema is there, or none; run `gateway setup`"
        )
    return StoreUnavailable(f"store: {type(error).__name__}")


def _is_missing(error: BaseException) -> bool:
    state = _state_of(error)
    if state is not None:
        return state in _MISSING_STATES
    return str(getattr(error, "orig", None)).startswith(("no such table", "no such column"))


def _state_of(error: BaseException) -> str | None:
    """PostgreSQL's SQLSTATE. Of a plan from before a migration SQLAlchemy hands on the driver's error without it."""
    cause = getattr(error, "orig", None)
    for one in (cause, getattr(cause, "__cause__", None)):
        state = getattr(one, "sqlstate", None)
        if state is not None:
            return str(state)
    return None


def is_unstorable(error: BaseException) -> bool:
    """Whether it is a value that is wrong, for ever: of no encoding, out of range, too long."""
    state = _state_of(error) or ""
    return isinstance(error, OverflowError | UnicodeEncodeError) or state.startswith(_UNSTORABLE_STATES)


def _forget_values(error: BaseException) -> None:
    """Take from asyncpg's errors the detail that quotes the row's values; `hide_parameters` does not reach it."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "detail", None) and not isinstance(cause, SQLAlchemyError):
            cause.detail = None  # type: ignore[attr-defined]  # drivers have it, the type does not
        cause = cause.__cause__


def _sqlite_engine(url: str, threads: WeakSet[Thread]) -> AsyncEngine:
    async def connect(*arguments: Any, **options: Any) -> aiosqlite.Connection:
        connection = aiosqlite.connect(*arguments, **options)
        connection._thread.daemon = True
        threads.add(connection._thread)
        try:
            return await connection
        except BaseException:  # given up while connecting: nobody else knows of the thread
            connection.stop()
            raise

    engine = create_async_engine(
        url,
        hide_parameters=True,
        pool_size=POOL_SIZE,
        max_overflow=0,
        connect_args={"async_creator_fn": connect},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "busy_timeout=5000", "foreign_keys=ON", "synchronous=FULL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        reading = connection.get_execution_options().get("gateway_reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _postgres_engine(url: str) -> AsyncEngine:
    engine = create_async_engine(
        url,
        hide_parameters=True,
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=5,
        connect_args={
            "timeout": 5,
            "command_timeout": 30,
            "server_settings": {
                "lock_timeout": "10s",
                "idle_in_transaction_session_timeout": "60s",
                # A plan made once for any values compares 500 URLs with every row of a connection: 220 ms, not 4.
                "plan_cache_mode": "force_custom_plan",
            },
        },
    )
    pool, dialect = engine.sync_engine.pool, engine.dialect

    @event.listens_for(pool, "checkin")
    def _rests(_connection: Any, record: Any) -> None:
        record.info["rests_since"] = time.monotonic()

    @event.listens_for(pool, "checkout")
    def _must_live(connection: Any, record: Any, _proxy: Any) -> None:
        # The pool's own ping, which is three calls, before each transaction was a third of what a transaction costs.
        if connection.driver_connection.is_closed():  # known at once when the server has closed it
            raise DisconnectionError
        if time.monotonic() - record.info.get("rests_since", math.inf) > RESTED_SECONDS:
            try:
                dialect.do_ping(connection)
            except dialect.loaded_dbapi.Error as error:
                raise DisconnectionError from error

    return engine
