"""The shipped Compose project as an operator runs it: scaled, killed, restarted, recreated under load (T-COMPOSE).

Each test begins and ends with everything healthy and a ledger that adds up, so that any order will do.
"""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.compose.project import ComposeFailed, Container
from tests.compose.world import OURS, World
from tests.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]


@pytest.mark.short_story
async def test_nothing_of_ours_is_root_and_the_set_up_has_ended_well(world: World) -> None:
    """T-COMPOSE."""
    found = await world.healthy()
    for one in found:
        if one.service in {*OURS, "setup", "sandbox"}:
            assert one.user.partition(":")[0].isdigit(), one
            assert int(one.user.partition(":")[0]) > 0, one
    for service in OURS:
        said = await world.project.compose("exec", "-T", service, "python", "-c", "import os; print(os.getuid())")
        assert int(said) > 0, service
    [setup] = [one for one in found if one.service == "setup"]
    assert (setup.running, setup.exit_code) == (False, 0)
    unchecked = [one.service for one in found if not one.health and one.service not in {"setup", "door"}]
    assert not unchecked


async def test_it_is_scaled_up_and_down_under_load(world: World) -> None:
    """T-COMPOSE."""
    async with world.load():
        with world.tell.step("fetch=4, reconcile=2, ingress=2 under load"):
            await world.up("--scale", "fetch=4", "--scale", "reconcile=2", "--scale", "ingress=2")
            assert await _numbers(world) == {"fetch": 4, "reconcile": 2, "ingress": 2}
        with world.tell.step("a burst of 200 webhooks") as step:
            since = len(world.events)
            step.note(f"{await world.sandbox.burst(200, 60)} sent")
            await world.told(since)
        with world.tell.step("down to one of each under load"):
            await world.up("--scale", "fetch=1", "--scale", "reconcile=1", "--scale", "ingress=1")
            assert await _numbers(world) == {"fetch": 1, "reconcile": 1, "ingress": 1}
    # The proxy may have sent some to an ingress that was just going.
    await world.settled("after scaling, the ledger adds up", resync=True)


@pytest.mark.parametrize("role", OURS)
async def test_a_container_that_is_killed_under_load_is_started_again(world: World, role: str) -> None:
    """T-KILL, T-COMPOSE: by `docker kill`, after which the engine leaves it; an operator's `up -d` starts it."""
    async with world.load():
        with world.tell.step(f"docker kill {role}, docker compose up -d"):
            [one] = await world.project.containers(role)
            await world.project.kill(one)
            await until(lambda: _ended(world, role), 10, f"{role} to be dead")
            since = len(world.events)
            await world.up()
            await world.told(since)
    await world.settled(f"after the kill of {role}, the ledger adds up", resync=role == "ingress")


@pytest.mark.parametrize("role", ["fetch", "relay"])
async def test_a_process_that_crashes_is_started_again_by_the_engine(world: World, role: str) -> None:
    """T-COMPOSE."""
    [before] = await world.project.containers(role)
    async with world.load():
        with world.tell.step(f"the process in {role} dies by SIGKILL"):
            with suppress(ComposeFailed):  # the container may be gone before the command has ended
                await world.project.compose("exec", "-T", role, "python", "-c", SIGNAL, "SIGKILL")
            again = await until(lambda: _restarted(world, before), 30, f"{role} to be started again", pace=0.5)
            assert again.id == before.id
            since = len(world.events)
            await world.told(since)
    await world.healthy()
    await world.settled(f"after the crash of {role}, the ledger adds up")


@pytest.mark.parametrize("role", ["ingress", "reconcile"])
async def test_a_process_that_hangs_is_ended_by_its_check_and_started_again(world: World, role: str) -> None:
    """T-COMPOSE, T-HANG: the engine itself would call it unhealthy and leave it."""
    [before] = await world.project.containers(role)
    async with world.load():
        with world.tell.step(f"the process in {role} is stopped by SIGSTOP"):
            await world.project.compose("exec", "-T", role, "python", "-c", SIGNAL, "SIGSTOP")
            again = await until(lambda: _restarted(world, before), 120, f"{role} to be started again", pace=0.5)
            since = len(world.events)
            assert (again.id, again.restarts) == (before.id, before.restarts + 1)
            assert '"event":"process.hung"' in await world.project.compose("logs", "--no-color", role)
            await world.told(since)
    found = await world.healthy()
    assert all(one.restarts == 0 for one in found if one.service in {"proxy", "sandbox"}), "who answered was let alone"
    # The proxy sent some to an ingress that did not answer.
    await world.settled(f"after {role} hung, the ledger adds up", resync=role == "ingress")


@pytest.mark.parametrize("service", ["rabbitmq", "postgres"])
async def test_a_restart_under_load_loses_nothing(world: World, service: str) -> None:
    """T-COMPOSE."""
    async with world.load():
        with world.tell.step(f"docker compose restart {service}"):
            await world.project.compose("restart", service)
            since = len(world.events)
            await world.healthy()
            await world.told(since)
    await world.settled(f"after the restart of {service}, the ledger adds up", resync=True)


@pytest.mark.short_story
@pytest.mark.parametrize("service", ["rabbitmq", "postgres"])
async def test_what_is_recreated_keeps_its_data(world: World, service: str) -> None:
    """T-COMPOSE, T-BRK-DURABLE: host name and volume carry them (B11): by --force-recreate, and by rm and up."""
    [before] = await world.project.containers(service)
    async with world.load():
        with world.tell.step(f"docker compose up -d --force-recreate {service}"):
            await world.project.compose("up", "-d", "--wait", "--force-recreate", "--no-deps", service)
            since = len(world.events)
            await world.told(since)
        with world.tell.step(f"docker compose rm -sf {service}, up -d"):
            await world.project.compose("rm", "-sf", service)
            await world.up()
            since = len(world.events)
            await world.told(since)
    [after] = await world.project.containers(service)
    assert after.id != before.id
    await world.settled(f"after {service} was recreated, the ledger adds up", resync=True)


async def test_a_broker_that_is_paused_is_waited_for(world: World) -> None:
    """T-COMPOSE."""
    async with world.load():
        with world.tell.step("docker compose pause rabbitmq until webhooks are refused, unpause"):
            refused = (await world.sum()).webhooks_refused
            await world.project.compose("pause", "rabbitmq")
            try:
                await until(lambda: _refused_since(world, refused), 60, "a webhook that is refused", pace=0.5)
            finally:
                await world.project.compose("unpause", "rabbitmq")
            since = len(world.events)
            await world.healthy()
            await world.told(since)
    await world.settled("after the pause, the ledger adds up", resync=True)


@pytest.mark.short_story
async def test_everything_ends_in_good_order_and_finds_its_data_again(world: World) -> None:
    """T-COMPOSE, T-TERM: under load every process of ours exits 0 within its grace; `down` removes all but volumes, and
    `up` begins there."""
    async with world.load():
        with world.tell.step("docker compose stop under load"):
            await world.project.compose("stop", *OURS)
        ended = await world.project.containers(*OURS)
        assert {one.service: one.exit_code for one in ended} == dict.fromkeys(OURS, 0)
    with world.tell.step("docker compose down, up"):
        await world.project.compose("down", profiles="")  # the stand-in remembers nothing, so it stays
        assert {one.service for one in await world.project.containers()} == {"sandbox"}
        await world.up()
    await world.settled("after down and up, the ledger adds up", resync=True)


SIGNAL = """
import os, pathlib, signal, sys
for status in pathlib.Path("/proc").glob("[0-9]*/status"):
    if "\\nPPid:\\t1\\n" in status.read_text():
        os.kill(int(status.parent.name), signal.Signals[sys.argv[1]])
"""
"""To what the container's init has started; not to its own process."""


async def _numbers(world: World) -> dict[str, int]:
    scaled = ("fetch", "reconcile", "ingress")
    found = await world.project.containers(*scaled)
    return {service: sum(one.service == service for one in found) for service in scaled}


async def _ended(world: World, service: str) -> bool:
    return not any(one.running for one in await world.project.containers(service))


async def _restarted(world: World, before: Container) -> Container | None:
    [now] = await world.project.containers(before.service)
    return now if now.restarts > before.restarts and now.well else None


async def _refused_since(world: World, before: int) -> bool:
    records = await world.sandbox.records()
    return sum(not one.lost and one.status == 503 for one in records.webhooks) > before
