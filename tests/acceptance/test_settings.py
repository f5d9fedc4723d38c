"""T-CONFIG. Wrong settings end a process with exit code 78 and a line each: the variable's name, never its value."""

from __future__ import annotations

import asyncio
from pathlib import Path

from common.process import EX_CONFIG
from common.store.engine import Store
from common.store.schema import remember
from ops.migrating import upgrade
from ops.stack import ROLES, Finished, Stack, environment

PROCESSES = [role for role in ROLES if role != "sandbox"]
NOWHERE = "amqp://guest:guest@127.0.0.1:1/none"
FACTS = ("EVENT_SOURCE", "SYNCAROO_BASE_URL")
WRONG = {
    "AMQP_URL": "",
    "DATABASE_URL": "canary://user:canary@host/name",
    "SITE_URI": "canary",
    "SYNCAROO_BASE_URL": "canary",
    "SHUTDOWN_GRACE_SECONDS": "canary",
}


async def test_every_fault_is_told_by_name_and_no_value_is(tmp_path: Path) -> None:
    stack = Stack(environment(amqp_url=NOWHERE, database_url="", settings=WRONG), tmp_path)
    for role, done in (await _run_all(stack)).items():
        assert done.code == EX_CONFIG, (role, done)
        assert [line.partition(":")[0] for line in done.output.splitlines()] == sorted(WRONG), (role, done)
        assert "canary" not in done.output, role


async def test_a_placeholder_is_no_secret(tmp_path: Path) -> None:
    secrets = ["ADMIN_TOKEN", "PLATFORM_CLIENT_SECRET", "SECRET_KEYS", "SYNCAROO_CLIENT_SECRET", "WEBHOOK_HASH_KEY"]
    values = environment(amqp_url=NOWHERE, database_url="", settings=dict.fromkeys(secrets, "changeme"))
    done = await Stack(values, tmp_path).run("-m", *ROLES["ingress"], timeout=30)
    assert done.code == EX_CONFIG, done
    assert [line.partition(":")[0] for line in done.output.splitlines()] == secrets
    assert "changeme" not in done.output


async def test_a_store_of_another_environment_is_refused(tmp_path: Path) -> None:
    """Even while there is no broker."""
    database_url = f"sqlite+aiosqlite:///{tmp_path / 'gateway.db'}"
    await upgrade(database_url)
    store = Store(database_url)
    await remember(store, dict.fromkeys(FACTS, "https://canary.example"))
    await store.close()
    stack = Stack(environment(amqp_url=NOWHERE, database_url=database_url), tmp_path)
    for role, done in (await _run_all(stack)).items():
        assert done.code == EX_CONFIG, (role, done)
        faults = [line for line in done.output.splitlines() if not line.startswith("{")]
        assert sorted(line.partition(":")[0] for line in faults) == sorted(FACTS), (role, done)
        assert "canary" not in done.output, role


async def _run_all(stack: Stack) -> dict[str, Finished]:
    """Every process, at once, until it has ended by itself."""
    done = await asyncio.gather(*(stack.run("-m", *ROLES[role], timeout=30) for role in PROCESSES))
    return dict(zip(PROCESSES, done, strict=True))
