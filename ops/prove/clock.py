"""Clocks of a gateway that can be put: that of its processes, and that of a PostgreSQL server, in one database."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import asyncpg  # type: ignore[import-untyped, unused-ignore]  # it ships no types

AHEAD_FILE = "AHEAD_FILE"
"""The setting that names the file which says by how many seconds."""

_OWN_CLOCK = """
CREATE TABLE clock_of_prove (ahead double precision);
INSERT INTO clock_of_prove VALUES (0);
CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz VOLATILE LANGUAGE sql AS
'SELECT pg_catalog.clock_timestamp() + make_interval(secs => ahead) FROM public.clock_of_prove'
"""


class Clock(ABC):
    """One that can be put; `settings` is what the environment of our processes needs for it."""

    settings: Mapping[str, str]

    @abstractmethod
    async def put(self, ahead: float) -> None:
        """So many seconds ahead of what it should show."""


class HostClock(Clock):
    """Of every process that is started through `ops.prove.ahead`; what measures seconds goes on as it should."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._file.write_text("0")
        self.settings = {AHEAD_FILE: str(self._file)}

    async def put(self, ahead: float) -> None:
        """In all processes, within a moment."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{ahead:g}")
        os.replace(written, self._file)


class ServerClock(Clock):
    """Of the sessions of a database, which ask a function of its own for the time."""

    settings: Mapping[str, str] = {}

    def __init__(self, url: str) -> None:
        self._url = url

    @classmethod
    async def in_database(cls, url: str) -> Self:
        """Of whoever connects from now on; the database is empty, and ours."""
        made = cls(urlsplit(url)._replace(scheme="postgresql").geturl())
        session = await asyncpg.connect(made._url)
        try:
            await session.execute(_OWN_CLOCK)
            name = (await session.fetchval("SELECT current_database()")).replace('"', '""')
            await session.execute(f'ALTER DATABASE "{name}" SET search_path = public, pg_catalog')
        finally:
            await session.close()
        return made

    async def put(self, ahead: float) -> None:
        """For all sessions at once."""
        session = await asyncpg.connect(self._url)
        try:
            await session.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
            await session.execute("UPDATE clock_of_prove SET ahead = $1", float(ahead))
        finally:
            await session.close()
