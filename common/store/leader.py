"""One of many: an advisory lock on PostgreSQL, a file lock beside SQLite. Both end with their holder."""

from __future__ import annotations

import os
import zlib

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from common.errors import StoreUnavailable
from common.logs import get_logger
from common.store.engine import Store, is_passing, try_flock

log = get_logger(__name__)


class Leadership:
    """Leading in one role, such as `relay`, among all processes on one store."""

    def __init__(self, store: Store, role: str) -> None:
        self._store = store
        self._role = role
        self._descriptor: int | None = None
        self._connection: AsyncConnection | None = None

    async def held(self) -> bool:
        """Whether this process leads; takes the lead when nobody has it.

        Raises:
            StoreUnavailable: the database does not answer; the lead is lost.
        """
        try:
            return await self._held_by_session() if self._store.postgres else self._held_by_file()
        except (SQLAlchemyError, OSError) as error:
            await self.release()
            if is_passing(error):
                raise StoreUnavailable(f"store: {type(error).__name__}") from error
            raise

    async def release(self) -> None:
        """Let another process lead."""
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

    def _held_by_file(self) -> bool:
        if self._descriptor is not None:
            return True
        path = f"{self._store.url.database}.{self._role}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not try_flock(descriptor):
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        log.info("leader.elected", role=self._role)
        return True

    async def _held_by_session(self) -> bool:
        if self._connection is not None:
            await self._connection.execute(text("SELECT 1"))
            return True
        connection = await self._store.session()
        key = {"key": zlib.crc32(self._role.encode())}
        try:
            taken = (await connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key)).scalar_one()
            if taken:
                self._connection = connection
        finally:
            if self._connection is None:
                await connection.close()
        if not taken:
            return False
        log.info("leader.elected", role=self._role)
        return True
