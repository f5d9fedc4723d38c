"""`gateway db`, and processes on a schema that is not theirs: both name the command that mends it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, text
from structlog.testing import capture_logs

from common.process import EX_CONFIG, done_before
from common.store import schema
from common.store.engine import Store
from common.store.schema import head_revision, wait_for_store
from ops.broker import Vhost
from ops.migrating import alembic_config
from ops.stack import Stack, environment
from tests.waiting import until

OLDER = "0006"


async def bring(url: str, work: Callable[[Connection], Any]) -> None:
    store = Store(url)
    async with store.transaction() as transaction:
        await transaction.execute_sync(work)
    await store.close()


def to_older(connection: Connection) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.downgrade(config, OLDER)


def to_newer(connection: Connection) -> None:
    connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))


async def ask(stack: Stack, *words: str) -> tuple[int, dict[str, Any]]:
    done = await stack.run("-m", "ops", "db", *words, "--json")
    return done.code, json.loads(done.output)


async def test_what_check_says_and_what_upgrade_mends(database_url: str, tmp_path: Path) -> None:
    """T-MIGRATE."""
    stack = Stack(environment(amqp_url="amqp://nowhere", database_url=database_url), tmp_path / "stack")

    code, found = await ask(stack, "check")
    assert (code, found["state"], found["differences"]) == (0, "ours", [])

    await bring(database_url, to_older)
    code, found = await ask(stack, "check")
    assert (code, found["state"], found["current"]) == (1, "older", OLDER)
    assert "gateway db upgrade" in found["whatToDo"]
    assert await ask(stack, "upgrade") == (0, {"current": head_revision(), "needed": head_revision()})
    assert (await ask(stack, "check"))[0] == 0

    await bring(database_url, lambda connection: connection.execute(text("DROP INDEX ix_event_created")))
    code, found = await ask(stack, "check")
    assert (code, found["differences"]) == (1, ["index ix_event_created is missing"])

    await bring(database_url, to_newer)
    code, found = await ask(stack, "check")
    assert (code, found["state"]) == (1, "newer")
    assert "newer program" in found["whatToDo"]
    done = await stack.run("-m", "ops", "db", "upgrade")
    assert done.code == 1
    assert done.output.startswith("DATABASE_URL: run the newer program")
    assert done.output.count("\n") == 1


async def test_looking_makes_no_file(tmp_path: Path) -> None:
    file = tmp_path / "nowhere.db"
    stack = Stack(
        environment(amqp_url="amqp://nowhere", database_url=f"sqlite+aiosqlite:///{file}"), tmp_path / "stack"
    )

    code, found = await ask(stack, "check")

    assert (code, found["state"]) == (1, "none")
    assert not file.exists()


@pytest.mark.parametrize("role", ["ingress", "reconcile"])
async def test_processes_wait_for_an_old_schema_and_refuse_a_newer_one(
    role: str, vhost: Vhost, database_url: str, tmp_path: Path
) -> None:
    """T-MIGRATE."""
    async with Stack(environment(amqp_url=vhost.url, database_url=database_url), tmp_path / "stack") as stack:
        await bring(database_url, to_older)
        (name,) = await stack.start(role)

        async def tells() -> bool:
            return "run `gateway setup`" in stack.logs(name) and f"({OLDER}) is older" in stack.logs(name)

        await until(tells, 60, "the line that says what to do")
        assert stack.running(name), "setup may be at it"
        assert (await stack.run("-m", "ops", "setup")).code == 0
        assert await stack.terminate(name) == 0

        await bring(database_url, to_newer)
        await stack.restart(name)
        assert await stack.wait(name, 60) == EX_CONFIG
        assert "run the newer program" in stack.logs(name)


async def test_what_lasts_is_said_again_loudly(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-MIGRATE."""
    import asyncio

    monkeypatch.setattr(schema, "LOUD_SECONDS", 0.3)
    store, stop = Store(empty_database_url), asyncio.Event()
    with capture_logs() as lines:
        waiting = asyncio.create_task(done_before(stop, wait_for_store(store, {})))

        async def is_loud() -> bool:
            return any(line["event"] == "store.still_waiting" for line in lines)

        await until(is_loud, 20, "the loud line")
        stop.set()
        await waiting
    await store.close()

    loud = [line for line in lines if line["event"] == "store.still_waiting"]
    assert loud[0]["log_level"] == "error"
    assert "run `gateway setup`" in loud[0]["reason"]
