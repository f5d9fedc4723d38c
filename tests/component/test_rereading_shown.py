"""What operators see and do about reading again: by the admin API and by `gateway status` and `gateway resync`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs
from typer.testing import CliRunner

from common.codec import loads
from common.store.targets import Wanted, want
from ops.cli import app
from schemas.messages import PlatformIds
from schemas.tables import FeedRow, TargetRow, table_of
from tests.component.gateway_parts import Gateway, running

BASE = "https://api.syncaroo.com/v1/locations"
HEARD = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
SHOWN = {
    "heardAt": "2026-01-02T03:04:05Z",
    "silentSince": "2026-01-02T04:04:05Z",
    "nextResyncAt": "2026-01-02T09:04:05Z",
}

_feed, _target = table_of(FeedRow), table_of(TargetRow)


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Gateway]:
    """Connections 99 and 100 with two locations each, which were answered; 101 was revoked."""
    async with running(database_url) as gateway:
        await gateway.add_user()
        for connection_id in (99, 100, 101):
            await gateway.code(connection_id)
            await know(gateway, connection_id)
        assert (await gateway.admin("DELETE", "connections/101"))[0] == 204
        yield gateway


async def know(gateway: Gateway, connection_id: int) -> None:
    wanted = [
        Wanted(connection_id, f"{BASE}/{one}", PlatformIds(location_id=f"our-{one}"), "webhook") for one in (1, 2)
    ]
    async with gateway.store.transaction() as transaction:
        await want(transaction, wanted)
        await transaction.execute(update(_target).values(started=_target.c.wanted, answered=_target.c.wanted))


async def plan(gateway: Gateway, *connections: int, **feed: Any) -> None:
    async with gateway.store.transaction() as transaction:
        await transaction.execute(update(_feed).where(_feed.c.connection_id.in_(connections)).values(feed))


async def command(gateway: Gateway, *words: str) -> tuple[int, str]:
    """`gateway …` as a person at a terminal runs it: exit code and what it said.

    The ingress, which runs in this process as well, logs beside it.
    """
    arguments = [*words, "--url", str(gateway.http.make_url("/"))]
    environment = {"ADMIN_TOKEN": "operators-token"}
    with capture_logs():
        done = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=environment)
    return done.exit_code, done.output


async def resynced(gateway: Gateway) -> set[tuple[int, str]]:
    """Connections and URLs that are wanted by hand, but for collections."""
    rows = await gateway.rows(TargetRow)
    return {(row.connection_id, row.url) for row in rows if row.answered < row.wanted and row.url[-1].isdigit()}


async def test_a_connection_shows_when_it_was_heard_and_is_read_again(gateway: Gateway) -> None:
    await plan(gateway, 99, heard_at=HEARD, silent_since=HEARD + HOUR, resync_at=HEARD + 6 * HOUR)
    listed = (await gateway.admin("GET", "connections"))[1]["items"]
    shown = {one["connectionId"]: {name: one[name] for name in SHOWN} for one in listed}
    nothing = dict.fromkeys(SHOWN)
    assert shown == {99: SHOWN, 100: nothing, 101: nothing}
    one = (await gateway.admin("GET", "connections/99"))[1]
    assert {name: one[name] for name in SHOWN} == SHOWN


async def test_status_shows_who_is_silent(gateway: Gateway) -> None:
    await plan(gateway, 100, heard_at=HEARD + 2 * HOUR, resync_at=HEARD + 7 * HOUR, missed_at=HEARD)
    silent = {"heard_at": HEARD, "silent_since": HEARD + HOUR, "resync_at": HEARD + 6 * HOUR}
    await plan(gateway, 99, 101, **silent)
    feeds = (await gateway.admin("GET", "status"))[1]["feeds"]
    assert feeds == {
        "heardAt": "2026-01-02T05:04:05Z", "nextResyncAt": SHOWN["nextResyncAt"], "missed": 1, "silent": {"99": SHOWN},
    }  # fmt: skip

    code, said = await command(gateway, "status", "--json")
    assert (code, loads(said.encode())["feeds"]) == (3, feeds), "nobody has let us into Syncaroo's API yet"
    code, said = await command(gateway, "status")
    assert code == 3
    (silent_line,) = [line for line in said.splitlines() if line.startswith("silent")]
    assert "connection 99 for" in silent_line
    (missed_line,) = [line for line in said.splitlines() if line.startswith("missed")]
    assert "1 connection to be read again" in missed_line


async def test_one_connection_is_resynced_by_hand(gateway: Gateway) -> None:
    code, said = await command(gateway, "resync", "99", "--json")
    targets = len([row for row in await gateway.rows(TargetRow) if row.connection_id == 99])
    assert (code, loads(said.encode())) == (0, {"resyncs": [{"connectionId": 99, "targets": targets}]})
    assert await resynced(gateway) == {(99, f"{BASE}/1"), (99, f"{BASE}/2")}


async def test_one_location_is_resynced_by_hand(gateway: Gateway) -> None:
    assert await command(gateway, "resync", "99", "--location", "our-2") == (
        0,
        "connection 99: 2 targets are read again\n",
    )
    assert await resynced(gateway) == {(99, f"{BASE}/2")}
    assert await command(gateway, "resync", "99", "--location", "nobody's") == (
        0,
        "connection 99: nothing is known of location nobody's that could be read again\n",
    )


async def test_all_that_are_not_revoked_are_resynced_by_hand(gateway: Gateway) -> None:
    code, said = await command(gateway, "resync", "--all")
    assert (code, [line.split(":")[0] for line in said.splitlines()]) == (0, ["connection 99", "connection 100"])
    assert {connection for connection, _ in await resynced(gateway)} == {99, 100}


@pytest.mark.parametrize("words", [[], ["99", "--all"], ["--all", "--location", "our-1"], ["--location", "our-1"]])
async def test_what_is_to_be_resynced_must_be_clear(gateway: Gateway, words: list[str]) -> None:
    code, said = await command(gateway, "resync", *words)
    assert code == 2
    assert "--all" in said
    assert await resynced(gateway) == set()
