"""What no webhook told comes right by itself: after the first burst, and when a connection is oddly silent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import update

from ops.broker import Vhost
from schemas.tables import FeedRow, table_of
from tests.pipeline import Pipeline, pipeline
from tests.waiting import until

ROOMS = "/v1/locations/5/resources"
ROOM, UNTOLD = f"{ROOMS}/7", f"{ROOMS}/8"


async def test_what_the_first_burst_did_not_tell_is_read_when_it_has_gone_quiet(
    vhost: Vhost, database_url: str
) -> None:
    """Also without a resync at intervals; once."""
    quiet = timedelta(milliseconds=500)
    async with pipeline(vhost.url, database_url, resync_interval=timedelta(0), burst_quiet=quiet) as run:
        await run.connect()
        rooms = [{"ID": "7", "capacity": 10}, {"ID": "8", "capacity": 4}]
        run.api.pages |= {ROOM: rooms[0], UNTOLD: rooms[1], ROOMS: rooms}
        await run.webhook(ROOM)
        await until(lambda: len(run.events) == 2, what="the room that no webhook told")
        assert [one["data"]["reason"] for one in run.events] == ["webhook", "resync"]
        assert set(await run.bodies()) == {ROOM, UNTOLD}
        (feed,) = await run.rows(FeedRow)
        assert (feed.first_read, feed.resync_at) == (True, None)


async def test_a_lost_webhook_is_found_by_the_silence_after_it(vhost: Vhost, database_url: str) -> None:
    """A connection that was heard every minute for five minutes, and now tells nothing of its last change."""
    after = timedelta(seconds=1)
    async with pipeline(vhost.url, database_url, resync_interval=timedelta(0), silence_after=after) as run:
        await run.connect()
        run.api.pages[ROOM] = {"ID": "7", "capacity": 10}
        await run.webhook(ROOM)
        await until(lambda: len(run.events) == 1)
        run.api.pages[ROOM] = {"ID": "7", "capacity": 11}
        await _was_heard(run, datetime.now(UTC) - timedelta(minutes=4), bursts=5, usual_quiet=60.0)
        await until(lambda: len(run.events) == 2, what="the change that no webhook told")
        assert run.events[1]["data"]["reason"] == "resync"
        assert (await run.rows(FeedRow))[0].silent_since is not None

        await run.webhook(ROOM)
        await until(lambda: _is_heard(run), what="the end of the silence")


async def _was_heard(run: Pipeline, at: datetime, **more: Any) -> None:
    async with run.store.transaction() as transaction:
        await transaction.execute(update(table_of(FeedRow)).values(heard_at=at, **more))


async def _is_heard(run: Pipeline) -> bool:
    (feed,) = await run.rows(FeedRow)
    return feed.silent_since is None
