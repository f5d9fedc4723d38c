"""Nobody waits for another connection, on a real broker and both databases; many webhooks cost few calls."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from aiohttp import web

from ops.broker import Vhost
from schemas.messages import ResyncWanted
from schemas.tables import TargetRow, table_of
from tests.pipeline import Pipeline, pipeline
from tests.waiting import until
from workers.fetch.pacing import cap_of

ROOMS = "/v1/locations/5/resources"
A, B = 98, 99
THEIRS, OURS = "/v1/locations/1/bookings", "/v1/locations/2/bookings"


def told_of(run: Pipeline, connection_id: int) -> int:
    """How many events there were about a connection."""
    return sum(event["data"]["connectionId"] == connection_id for event in run.events)


async def webhooks(run: Pipeline, connection_id: int, collection: str, count: int, page: Any = None) -> None:
    for number in range(count):
        run.api.pages[f"{collection}/{number}"] = page or {"ID": number}
        await run.webhook(f"{collection}/{number}", connection_id=connection_id)


async def test_a_thousand_webhooks_over_twenty_targets_cost_at_most_sixty_calls(
    vhost: Vhost, database_url: str
) -> None:
    """They wait in the queue when the worker comes, and some come while it asks; every state of the end comes out."""

    async def change(run: Pipeline, number: int) -> None:
        path = f"{ROOMS}/{number % 20}"
        run.api.pages[path] = {"ID": str(number % 20), "state": number}
        await run.webhook(path)

    async def before(run: Pipeline) -> None:
        await asyncio.gather(*(change(run, number) for number in range(980)))

    async with pipeline(vhost.url, database_url, before=before, target_interval=timedelta(seconds=1)) as run:
        await until(lambda: run.api.calls)
        await asyncio.gather(*(change(run, number) for number in range(980, 1000)))

        async def all_out() -> bool:
            bodies = await run.bodies()
            return len(bodies) == 20 and all(bodies[path] == page for path, page in run.api.pages.items())

        await until(all_out, timeout=30)
        await until(run.at_rest, timeout=30)
        assert len(run.api.calls) <= 60
        pages = {page["ID"]: page for page in run.api.pages.values()}
        await until(lambda: {body["ID"]: body for body in run.replayed().values()} == pages)


async def test_a_connection_whose_calls_hang_keeps_no_other_waiting(vhost: Vhost, database_url: str) -> None:
    """T-FAIR: it has a part of the calls that run at once, and the others have the rest."""
    released = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await released.wait()
        return web.json_response({"data": {"ID": request.path.rsplit("/", 1)[1]}})

    async with pipeline(vhost.url, database_url, fetch_concurrency=8) as run:
        await webhooks(run, A, THEIRS, 20, hang)
        await until(lambda: len(run.api.calls) == cap_of(8))
        await webhooks(run, B, OURS, 20)
        await until(lambda: told_of(run, B) == 20)
        assert told_of(run, A) == 0
        assert sum(path.startswith(THEIRS) for path in run.api.calls) == cap_of(8)
        released.set()
        await until(lambda: told_of(run, A) == 20)


async def test_a_resync_of_five_thousand_targets_does_not_delay_another_connections_webhook(
    vhost: Vhost, database_url: str
) -> None:
    """T-FAIR: neither while they are marked nor while they are read."""
    async with pipeline(vhost.url, database_url) as run:
        await know(run, A, 5000)
        await run.send(ResyncWanted(connection_id=A), A)
        for number in range(3):
            path = f"{OURS}/{number}"
            run.api.pages[path] = {"ID": number}
            before = len(run.api.calls)
            await run.webhook(path, connection_id=B)
            await until(lambda: told_of(run, B) == number + 1, pace=0.02)  # noqa: B023  # awaited in the same round
            assert len(run.api.calls) - before < 500, "a tenth of them at most was read before it"
            await until(lambda: len(run.api.calls) > 50 * number, timeout=30, what="the resync goes on")  # noqa: B023  # awaited in the same round
        due = [row for row in await run.rows(TargetRow) if row.wanted > row.answered]
        assert len(due) > 2000, "it is far from its end"


async def know(run: Pipeline, connection_id: int, count: int) -> None:
    """Targets that were read some time ago."""
    url = f"{run.base_url}{THEIRS}"
    host = run.base_url.removeprefix("http://")
    told = {"connection_id": connection_id, "host": host, "reason": "webhook", "wanted": 1, "started": 2, "answered": 2}
    async with run.store.transaction() as transaction:
        rows = [{**told, "url": f"{url}/{number}"} for number in range(count)]
        await transaction.execute(table_of(TargetRow).insert(), rows)
