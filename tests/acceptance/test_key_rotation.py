"""SECRET_KEYS are rotated under load, process by process: nobody outside notices, and no token is lost (T-KEYROT)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.fernet import Fernet

from common.codec import loads
from common.process import EX_CONFIG
from ops.stack import ROLES, WORKERS
from tests.acceptance.world import World, again_and_again, answers, world
from tests.door import Door, door
from tests.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

CONNECTION = 99
SECONDS = 90.0
OLD, NEW, WRONG = (Fernet.generate_key().decode() for _ in range(3))
SETTINGS = {"SECRET_KEYS": OLD, "ACCESS_TOKEN_SECONDS": "16", "DRAIN_SECONDS": "0.1"}
"""Tokens of both directions live for seconds, so that each is renewed after each step; ours not for so few that one
could end on its way on a busy machine."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def entrance() -> AsyncIterator[Door]:
    async with door() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(directory: Path, sqlite_url: str, amqp_url: str, entrance: Door) -> AsyncIterator[World]:
    """Two ingress processes behind one address; everything else once."""
    settings = {**SETTINGS, "SITE_URI": entrance.url}
    async with world(
        directory, amqp_url=amqp_url, database_url=sqlite_url, settings=settings, sandbox=["--token-seconds=8"]
    ) as made:
        await made.stack.start("ingress")
        await made.stack.wait_ready()
        entrance.up = [made.stack.url_of(name) for name in made.stack.names("ingress")]
        await made.onboard(CONNECTION)
        yield made


async def test_a_rotation_under_load_refuses_no_webhook_and_loses_no_token(gateway: World, entrance: Door) -> None:
    """T-KEYROT: the new key is appended everywhere, then moved first, then the old one goes when it is not needed."""

    async def change(_: int) -> None:
        await gateway.sandbox.change("price", wait=False)

    async with again_and_again(change, 0.2):
        await _roll(gateway, entrance, f"{OLD},{NEW}")
        await _roll(gateway, entrance, f"{NEW},{OLD}")
        moved = datetime.now(UTC)
        await until(lambda: _is_spare(gateway, moved), SECONDS, what="the old key to be spare", pace=0.5)
        await _roll(gateway, entrance, NEW)
        await _all_is_renewed(gateway)
    await gateway.ledger(SECONDS)
    records = await gateway.sandbox.records()
    assert {one.status for one in records.webhooks} == {200}
    assert {one.status for one in records.platform} == {200}
    assert {one.outcome for one in records.tokens} == {"issued"}
    told = [event["data"]["state"] for event in gateway.events if event["type"] == "grant.changed"]
    assert told == ["active"]


async def test_without_the_key_nobody_starts_and_the_row_stays(gateway: World) -> None:
    """T-KEYROT: one line that says what to do; with the key all goes on."""
    needing = ("token-1", "fetch-1")
    for name in needing:
        await gateway.stack.terminate(name)
    try:
        before = _grant_row(gateway)
        for role in ("token", "fetch", "all"):
            await _is_refused(gateway, role, before["sealed_pair"])
        assert _grant_row(gateway) == before
        assert (await _check(gateway, WRONG))[0] == 1
    finally:
        for name in needing:
            await gateway.stack.restart(name)
    await _all_is_renewed(gateway)
    await gateway.ledger(SECONDS)


async def _is_refused(made: World, role: str, sealed: str) -> None:
    done = await made.stack.run("-m", *ROLES[role], settings={"SECRET_KEYS": WRONG})
    faults = [line for line in done.output.splitlines() if line.startswith("SECRET_KEYS: ")]
    assert (done.code, len(faults)) == (EX_CONFIG, 1), (role, done.output)
    assert not [secret for secret in (OLD, NEW, WRONG, sealed) if secret in done.output]


async def _roll(made: World, entrance: Door, keys: str) -> None:
    """Each ingress once, one after the other, while requests go to all that are up; then the workers.

    After each of them, one with the new keys and one with the old serve side by side, until each has been shown what
    the other issued.
    """
    settings = {"SECRET_KEYS": keys}
    everybody = list(entrance.up)
    for name in made.stack.names("ingress"):
        url = made.stack.url_of(name)
        entrance.up = [other for other in everybody if other != url]
        await made.stack.restart(name, settings)
        await until(partial(answers, url), SECONDS, what=f"{name} to answer")
        entrance.up = everybody
        await _all_is_renewed(made)
    workers = [name for role in WORKERS for name in made.stack.names(role)]
    await asyncio.gather(*(made.stack.restart(name, settings) for name in workers))
    made.stack.environment.update(settings)


async def _is_spare(made: World, moved: datetime) -> bool:
    """Nothing needs the old key any more, by the operator's own command."""
    code, found = await _check(made, f"{NEW},{OLD}")
    assert (code, found["lastIsNeeded"], found["grant"]) == (0, False, 1), found
    return datetime.fromisoformat(found["issuedSince"]) > moved


async def _check(made: World, keys: str) -> tuple[int, dict[str, Any]]:
    done = await made.stack.run("-m", "ops", "keys", "check", "--json", settings={"SECRET_KEYS": keys})
    return done.code, loads(done.output.encode())


async def _all_is_renewed(made: World) -> None:
    """Once more, in both directions."""
    order = (await made.sandbox.records()).order

    async def is_renewed() -> bool:
        records = await made.sandbox.records(after=order)
        ours = [one for one in records.platform if one.what == "refresh" and one.status == 200]
        theirs = [one for one in records.tokens if one.outcome == "issued"]
        return bool(ours and theirs)

    async with again_and_again(lambda _: made.sandbox.change("price", wait=False), 0.5):
        await until(is_renewed, SECONDS, what="both kinds of tokens to be renewed", pace=0.5)


def _grant_row(made: World) -> dict[str, Any]:
    path = made.stack.environment["DATABASE_URL"].partition("///")[2]
    with sqlite3.connect(path) as store:
        store.row_factory = sqlite3.Row
        row = dict(store.execute('SELECT * FROM "grant"').fetchone())
    store.close()
    return row
