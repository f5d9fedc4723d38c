"""The database's clock jumps under a gateway of real processes; theirs are hours apart."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from ops.prove.clock import HostClock, ServerClock
from ops.stack import ROLES
from tests.acceptance.conftest import NewDatabase
from tests.acceptance.world import Changes, World, again_and_again, world
from tests.fixtures.broker import Vhosts
from tests.waiting import until

pytestmark = pytest.mark.timeout(1200)

LIFETIME = 6
SECONDS = 90
HOUR = 3600
CONNECTION = 99
EVENTS = 150
SKEWED = (
    ("ingress", HOUR // 2), ("token", -HOUR), ("relay", 2 * HOUR), ("fetch", HOUR), ("fetch", -HOUR),
    ("reconcile", -HOUR // 2), ("reconcile", HOUR // 2),
)  # fmt: skip
"""Seconds ahead, of each process."""


async def renewed_at(made: World) -> list[float]:
    """When pairs were issued for a refresh token, by the stand-in's clock, which stays right."""
    tokens = (await made.sandbox.records()).tokens
    return [one.began_at for one in tokens if one.grant_type == "refresh_token" and one.outcome == "issued"]


async def is_renewed_twice_more(made: World) -> None:
    before = len(await renewed_at(made))

    async def is_renewed() -> bool:
        return len(await renewed_at(made)) >= before + 2

    await until(is_renewed, SECONDS, what="two renewals")


async def test_a_clock_that_jumps_by_an_hour_neither_stops_renewing_nor_makes_a_loop_of_it(
    tmp_path: Path, vhosts: Vhosts, postgresql_url: str
) -> None:
    """T-RT-CLOCK: back by an hour, where a worker that has not seen the pair before takes over, and forward again."""
    vhost = vhosts.take()
    clock = await ServerClock.in_database(postgresql_url)
    async with world(
        tmp_path,
        amqp_url=vhost.url,
        database_url=postgresql_url,
        sandbox=[f"--token-seconds={LIFETIME}"],
        roles=["ingress", "token"],
    ) as made:
        await made.authorise(SECONDS)
        await is_renewed_twice_more(made)
        [worker] = made.stack.names("token")
        await made.stack.terminate(worker)  # a pair that is on its way to the store is kept first
        await clock.put(-HOUR)
        await made.stack.start("token")
        await is_renewed_twice_more(made)
        await clock.put(HOUR)
        await is_renewed_twice_more(made)

        found, times = await made.sum(), await renewed_at(made)
        assert await made.has_grant()
    assert not found.overlapping
    assert not found.presented_again
    hasty = [later - earlier for earlier, later in pairwise(times) if later - earlier < LIFETIME / 2]
    assert len(hasty) <= 1, "only where the clock went forward was a pair due at once"
    vhosts.give_back(vhost)


async def test_hosts_whose_clocks_are_hours_apart_lose_and_overwrite_nothing(
    tmp_path: Path, vhosts: Vhosts, new_database: NewDatabase
) -> None:
    """T-CLOCK: an answer is newer because it was asked for later, not because of what a clock said (G3)."""
    vhost = vhosts.take()
    with new_database() as url:
        await _hours_apart(tmp_path, vhost.url, url)
    vhosts.give_back(vhost)


async def _hours_apart(directory: Path, amqp_url: str, database_url: str) -> None:
    async with world(directory, amqp_url=amqp_url, database_url=database_url, roles=()) as made:
        for number, (role, ahead) in enumerate(SKEWED):
            clock = HostClock(directory / f"ahead-{number}")
            await clock.put(ahead)
            command = ["-m", "ops.prove.ahead", *ROLES[role]]
            await made.stack.start(role, command=command, settings=clock.settings)
        await made.stack.wait_ready()
        await made.onboard(CONNECTION)
        async with again_and_again(Changes(made, CONNECTION)):
            await until(lambda: len(made.events) > EVENTS, SECONDS, what="many changes")
        await made.ledger()
        fetched = [event["data"]["fetchedAt"] for event in made.events if event["type"] == "listing.changed"]
        hours = {datetime.fromisoformat(at).timestamp() // HOUR for at in fetched}
        assert max(hours) - min(hours) >= 2, "by both of the fetch workers' clocks"
