"""One of many: an advisory lock on PostgreSQL, a file lock beside SQLite. Both end with their holder.

A holder that dies is followed at once. One that is frozen, or whose machine is cut off, keeps its lock: it also has a
pulse, a row that it touches, and whoever stands by and sees no pulse for a while takes the lock from it.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from common.clock import Monotonic, monotonic_seconds
from common.errors import StoreUnavailable
from common.logs import get_logger
from common.store.engine import Store, is_passing, try_flock, unavailable
from common.store.insert import insert
from schemas.tables import BeatRow, table_of

PULSE_SECONDS = 3.0
FROZEN_SECONDS = 15.0
"""Without a pulse for so long, by the watch of whoever stands by: no two clocks are compared."""

log = get_logger(__name__)
_beat = table_of(BeatRow)

_NO_RIGHT = "42501"
_TAKE = text("SELECT pg_try_advisory_lock(:key)")
_END_THE_HOLDER = text(
    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = 0 "
    "AND objid = :key AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class Leadership:
    """Leading in one role, such as `relay`, among all processes on one store."""

    def __init__(self, store: Store, role: str, clock: Monotonic = monotonic_seconds) -> None:
        self._store = store
        self._role = role
        self._clock = clock
        self._descriptor: int | None = None
        self._connection: AsyncConnection | None = None
        self._pulsed: float | None = None
        self._looked = False
        self._seen: datetime | None = None
        self._seen_since = 0.0

    async def held(self) -> bool:
        """Whether this process leads; takes the lead when nobody has it, or when who has it shows no pulse.

        Raises:
            StoreUnavailable: the database does not answer; the lead is lost.
        """
        try:
            if await self._has_lock():
                await self._pulse()
                return True
            if await self._holder_is_frozen():
                await self._take_from_holder()
            return False
        except StoreUnavailable:
            self._looked = False  # who cannot look knows nothing about the holder
            raise
        except (SQLAlchemyError, OSError) as error:
            await self.release()
            if is_passing(error):
                raise unavailable(error) from error
            raise

    async def release(self) -> None:
        """Let another process lead."""
        self._pulsed = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                # Closed, not returned to the pool: the lock belongs to the session.
                await connection.invalidate()
                await connection.close()
            except (SQLAlchemyError, OSError) as error:
                log.debug("leader.release_failed", reason=type(error).__name__)

    async def _has_lock(self) -> bool:
        return await self._held_by_session() if self._store.postgres else self._held_by_file()

    # --- the lock

    @property
    def _path(self) -> str:
        return f"{self._store.url.database}.{self._role}.lock"

    @property
    def _key(self) -> dict[str, int]:
        return {"key": zlib.crc32(self._role.encode())}

    def _held_by_file(self) -> bool:
        if self._descriptor is None:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not try_flock(descriptor):
                os.close(descriptor)
                return False
            self._descriptor = descriptor
            log.info("leader.elected", role=self._role)
        if _is_the_file_at(self._descriptor, self._path):
            return True
        log.warning("leader.replaced", role=self._role)
        os.close(self._descriptor)
        self._descriptor = None
        return False

    async def _held_by_session(self) -> bool:
        if self._connection is not None:
            await self._connection.execute(text("SELECT 1"))
            return True
        connection = await self._store.session()
        try:
            taken = (await connection.execute(_TAKE, self._key)).scalar_one()
            if taken:
                self._connection = connection
        finally:
            if self._connection is None:
                await connection.close()
        if not taken:
            return False
        log.info("leader.elected", role=self._role)
        return True

    async def _take_from_holder(self) -> None:
        """Who has the lock loses it; the next look takes it. Only a process that can write does that: where nobody can,
        the holder has no pulse either.

        Raises:
            StoreUnavailable: nobody can write.
        """
        await self._write_beat(f"{self._role} standby")
        log.warning("leader.frozen", role=self._role, seconds=FROZEN_SECONDS)
        self._looked = False
        if not self._store.postgres:
            with suppress(FileNotFoundError):  # another that stands by was first
                os.unlink(self._path)
            return
        try:
            async with self._store.transaction() as transaction:
                await transaction.execute(_END_THE_HOLDER, self._key)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _NO_RIGHT:
                raise
            what = "grant pg_signal_backend to our role, or end the frozen process"
            log.error("leader.not_replaced", role=self._role, what_to_do=what)

    # --- the pulse

    async def _pulse(self) -> None:
        now = self._clock()
        if self._pulsed is not None and now - self._pulsed < PULSE_SECONDS:
            return
        try:
            await self._write_beat(self._role)
        except StoreUnavailable as error:
            log.debug("leader.no_pulse", role=self._role, reason=str(error))  # nobody else can write either
        self._pulsed = now

    async def _write_beat(self, name: str) -> None:
        async with self._store.transaction() as transaction:
            at = await transaction.now()
            statement = insert(transaction, _beat).values(name=name, at=at)
            await transaction.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"at": at}))

    async def _holder_is_frozen(self) -> bool:
        async with self._store.reading() as transaction:
            row = await transaction.row(select(_beat.c.at).where(_beat.c.name == self._role))
        seen = None if row is None else row.at
        if not self._looked or seen != self._seen:
            self._looked, self._seen, self._seen_since = True, seen, self._clock()
            return False
        return self._clock() - self._seen_since >= FROZEN_SECONDS


def _is_the_file_at(descriptor: int, path: str) -> bool:
    """Whether the lock is still where others look for it."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
