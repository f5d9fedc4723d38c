"""A PostgreSQL database to measure on, at the server of `BENCH_POSTGRES_URL`; made and dropped again."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg  # type: ignore[import-untyped, unused-ignore]  # it ships no types
from sqlalchemy import make_url

from benchmarks.processes import Failed

SERVER = os.environ.get("BENCH_POSTGRES_URL", "postgresql+asyncpg://postgres@127.0.0.1:5432/postgres")
CONNECT_SECONDS = 5.0


@asynccontextmanager
async def database() -> AsyncIterator[str]:
    """An empty one → its `DATABASE_URL`.

    Raises:
        Failed: no server lets us in.
    """
    name, server = f"bench_{secrets.token_hex(4)}", make_url(SERVER)
    await _run(f"CREATE DATABASE {name}")
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        await _run(f"DROP DATABASE {name} WITH (FORCE)")


async def _run(statement: str) -> None:
    url = make_url(SERVER).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS)
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        raise Failed(f"BENCH_POSTGRES_URL: no PostgreSQL lets us in ({type(error).__name__})") from error
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
