"""The store is locked, slow, full, read-only, and throws everybody out."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from urllib.parse import urlsplit

import asyncpg  # type: ignore[import-untyped, unused-ignore]  # it ships no types

from ops.prove.plan import Kind
from ops.prove.troubles.scene import Happen, Scene

HOLD_SECONDS, LET_GO_SECONDS = 0.4, 0.1


def happenings(*, postgresql: bool) -> dict[Kind, Happen]:
    """Those of such a store. PostgreSQL is slow by a slow line; its disk is not ours to fill."""
    if postgresql:
        return {
            Kind("store locked", ("store",), (1.0, 12.0)): table_locked,
            Kind("store's sessions ended", ("store",)): sessions_ended,
            Kind("store read-only", ("store",), (1.0, 8.0)): read_only,
        }
    found: dict[Kind, Happen] = {
        Kind("store locked", ("store",), (1.0, 12.0)): file_locked,
        Kind("store slow", ("store",), (2.0, 8.0)): file_slow,
    }
    if sys.platform == "linux":  # only there a limit can be given to a process that runs
        found[Kind("no file can be written", ("store",), (1.0, 8.0))] = unwritable
    return found


@asynccontextmanager
async def table_locked(scene: Scene) -> AsyncIterator[None]:
    """Somebody holds the listings' table."""
    async with _session(scene) as session, session.transaction():
        await session.execute("LOCK TABLE listing IN EXCLUSIVE MODE")
        yield


@asynccontextmanager
async def sessions_ended(scene: Scene) -> AsyncIterator[None]:
    """The server ends every session of the database."""
    async with _session(scene) as session:
        await _end_all(session)
    yield


@asynccontextmanager
async def read_only(scene: Scene) -> AsyncIterator[None]:
    """As a server is after a switch to another one, for whoever has not noticed."""
    async with _session(scene) as session:
        await _for_all(session, "SET default_transaction_read_only = on")
    try:
        yield
    finally:
        async with _session(scene) as session:
            await session.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
            await _for_all(session, "RESET default_transaction_read_only")


async def _for_all(session: asyncpg.Connection, change: str) -> None:
    name = (await session.fetchval("SELECT current_database()")).replace('"', '""')
    await session.execute(f'ALTER DATABASE "{name}" {change}')
    await _end_all(session)


async def _end_all(session: asyncpg.Connection) -> None:
    await session.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


@asynccontextmanager
async def _session(scene: Scene) -> AsyncIterator[asyncpg.Connection]:
    session = await asyncpg.connect(urlsplit(scene.database_url)._replace(scheme="postgresql").geturl())
    try:
        yield session
    finally:
        await session.close()


@asynccontextmanager
async def file_locked(scene: Scene) -> AsyncIterator[None]:
    """Somebody holds the lock of whoever writes."""
    with closing(_file(scene)) as file:
        await asyncio.to_thread(file.execute, "BEGIN IMMEDIATE")
        yield  # what is closed is rolled back


@asynccontextmanager
async def file_slow(scene: Scene) -> AsyncIterator[None]:
    """Somebody has the lock most of the time, as a long backup does."""
    with closing(_file(scene)) as file:
        holding = asyncio.create_task(_hold_again_and_again(file))
        try:
            yield
        finally:
            holding.cancel()
            with suppress(asyncio.CancelledError):
                await holding


async def _hold_again_and_again(file: sqlite3.Connection) -> None:
    while True:
        await asyncio.shield(asyncio.to_thread(file.execute, "BEGIN IMMEDIATE"))
        await asyncio.sleep(HOLD_SECONDS)
        file.execute("ROLLBACK")
        await asyncio.sleep(LET_GO_SECONDS)


@asynccontextmanager
async def unwritable(scene: Scene) -> AsyncIterator[None]:
    """No process of ours that runs now can write to any file, its log included, as on a disk that is full."""
    stack = scene.stage.stack
    pids = [stack.pid(name) for name in scene.stage.names if not name.startswith("sandbox") and stack.running(name)]
    before = {pid: limits for pid in pids if (limits := _limit(pid)) is not None}
    for pid, (_, hard) in before.items():
        _limit(pid, (0, hard))
    try:
        yield
    finally:
        for pid, limits in before.items():
            _limit(pid, limits)


def _limit(pid: int, limits: tuple[int, int] | None = None) -> tuple[int, int] | None:
    """The greatest size of a file that the process may write, changed or only asked; None when it is no more."""
    with suppress(ProcessLookupError):
        return resource.prlimit(pid, resource.RLIMIT_FSIZE, *([] if limits is None else [limits]))
    return None


def _file(scene: Scene) -> sqlite3.Connection:
    path = scene.database_url.partition("///")[2]
    return sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
