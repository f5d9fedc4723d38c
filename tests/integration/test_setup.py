"""`gateway setup` against a real broker and a real database."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import aio_pika
import pytest

from ops.broker import Vhost
from tests.fixtures.broker import Vhosts

QUEUES = ("syncaroo.token", "syncaroo.fetch", "syncaroo.reconcile", "syncaroo.fetch.dead", "syncaroo.events.log")


def setup(directory: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AMQP", "EVENTS", "DATABASE"))}
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", "ops", "setup", *words],
        env={**kept, "PYTHONPATH": root, **settings},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_any_number_of_times(vhost: Vhost, empty_database_url: str, tmp_path: Path) -> None:
    for _ in range(2):
        done = setup(tmp_path, AMQP_URL=vhost.url, DATABASE_URL=empty_database_url)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert "policy: " in done.stdout
        assert "guest" not in done.stdout, "no password, no user"

    async with await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel()
        for name in QUEUES:
            await channel.get_queue(name)


async def test_a_queue_that_was_declared_otherwise_is_named(vhost: Vhost, tmp_path: Path) -> None:
    async with await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("syncaroo.fetch", durable=True)

    done = setup(tmp_path, AMQP_URL=vhost.url)

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "AMQP_URL: queue syncaroo.fetch exists with another x-" in done.stderr
    assert "delete" in done.stderr


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"AMQP_URL": "amqp://guest:geheim@127.0.0.1:1/x"}, "AMQP_URL"),
        ({"DATABASE_URL": "postgresql+asyncpg://gateway:geheim@127.0.0.1:1/x"}, "DATABASE_URL"),
    ],
)
def test_what_is_not_there_is_waited_for_only_so_long(
    settings: dict[str, str], name: str, vhost: Vhost, tmp_path: Path
) -> None:
    began = time.monotonic()

    done = setup(tmp_path, "--wait", "1", **{"AMQP_URL": vhost.url, **settings})

    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}: no ")
    assert done.stderr.count("\n") == 1
    assert "geheim" not in done.stdout + done.stderr
    assert time.monotonic() - began < 30


async def test_events_may_have_a_broker_of_their_own(vhost: Vhost, vhosts: Vhosts, tmp_path: Path) -> None:
    other = vhosts.take()

    done = setup(tmp_path, AMQP_URL=vhost.url, EVENTS_AMQP_URL=other.url)

    assert done.returncode == 0, done.stderr
    async with await aio_pika.connect(other.url) as connection:
        await (await connection.channel()).get_queue("syncaroo.events.log")
        with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
            await (await connection.channel()).get_queue("syncaroo.fetch")
    vhosts.give_back(other)
