"""`gateway why` on the whole flow: the story of one listing through trouble, a change, no change and its end."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from common.codec import loads
from common.settings import AdminSettings
from ingress.admin.handler import AdminHandler
from ingress.passwords import Passwords
from ingress.problems import problem_middleware
from ops.broker import Vhost
from ops.cli import main
from schemas.tables import AttemptRow, EventRow
from tests.component.gateway_parts import Broker
from tests.pipeline import Pipeline, pipeline
from tests.waiting import until

ROOM = "/v1/locations/5/resources/7843"


@asynccontextmanager
async def admin_api(run: Pipeline) -> AsyncIterator[str]:
    """The operator's API on the pipeline's store → its base."""
    app = web.Application(middlewares=[problem_middleware])
    operators = AdminSettings(admin_token="operators-token")  # type: ignore[arg-type]  # text, as in the environment
    app.add_routes(AdminHandler(run.store, Broker(), operators, Passwords()).routes())
    server = TestServer(app)
    await server.start_server()
    try:
        yield str(server.make_url("")).rstrip("/")
    finally:
        await server.close()


async def gateway(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The console script, beside the pipeline → its exit code."""
    monkeypatch.setattr(sys, "argv", ["gateway", *words])
    with pytest.raises(SystemExit) as ended:
        await asyncio.to_thread(main)
    assert isinstance(ended.value.code, int)
    return ended.value.code


async def test_the_story_of_a_listing(
    vhost: Vhost, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through a 503, a change, a second look that finds nothing new, and a 404."""
    monkeypatch.setenv("ADMIN_TOKEN", "operators-token")
    quick = timedelta(milliseconds=100)
    async with (
        pipeline(vhost.url, database_url, recheck_after=quick, target_interval=quick) as run,
        admin_api(run) as base,
    ):

        async def settled(attempts: int, events: int) -> None:
            async def done() -> bool:
                told = len(await run.rows(AttemptRow)), len(await run.rows(EventRow))
                return (*told, len(run.events)) == (attempts, events, events)

            await until(done, what=f"{attempts} attempts, {events} events")

        run.api.pages[ROOM] = {"ID": "7843", "name": "Blue room", "capacity": 10}
        run.api.failures[ROOM] = [503, 503]  # the first is tried again at once, as a trouble of a moment
        deliveries = [await run.webhook(ROOM, resource_id="7843", resource_type="meeting-room")]
        await settled(2, 1)
        run.api.pages[ROOM] = {"ID": "7843", "name": "Blue room", "capacity": 12}
        deliveries.append(await run.webhook(ROOM))
        await settled(3, 2)
        deliveries.append(await run.webhook(ROOM))
        await settled(5, 2)
        del run.api.pages[ROOM]
        deliveries.append(await run.webhook(ROOM))
        await settled(6, 3)

        async def published() -> bool:
            return all(row.published_at for row in await run.rows(EventRow))

        await until(published)

        capsys.readouterr()
        assert await gateway(monkeypatch, "why", "99/resources/7843", "--url", base) == 0
        head, _, timeline = _screen(capsys.readouterr().out).partition("\n\n")
        assert await gateway(monkeypatch, "why", f"{run.base_url}/{ROOM}/", "--url", base, "--json") == 0
        same = loads(capsys.readouterr().out.encode())
        assert await gateway(monkeypatch, "why", "98/resources/7843", "--url", base) == 1
        unknown = capsys.readouterr().err

    listing = same["listing"]
    assert head.splitlines() == [
        "99/resources/7843  “Blue room”",
        f"listing     {listing['listingId']}",
        f"path        {ROOM}",
        "ours        location 1198, resource 7843, type meeting-room",
        "now         version 3, deleted, since (time)",
        "last told   (time), by a webhook",
        "last read   (time), with 404",
        "target      answered with 404, nobody waits for it",
    ]
    assert [line.rstrip() for line in timeline.splitlines()[1:]] == [
        f"(time)  webhook      delivery {deliveries[0]}",
        "(time)  attempt 1    503, put off",
        "(time)  attempt 2    200",
        "                       → version 1 created, event published",
        f"(time)  webhook      delivery {deliveries[1]}",
        "(time)  attempt 1    200",
        "                       capacity  10 → 12",
        "                       → version 2 updated, event published",
        f"(time)  webhook      delivery {deliveries[2]}",
        "(time)  attempt 1    200, nothing changed",
        "(time)  second look  200, nothing changed",
        f"(time)  webhook      delivery {deliveries[3]}",
        "(time)  attempt 1    404, gone",
        "                       → version 3 deleted, event published",
    ]
    assert [one["version"] for one in same["history"] if one["kind"] == "change"] == [3, 2, 1]
    assert unknown.startswith("No listing is known as 98/resources/7843. These end alike:")
    assert f"{listing['listingId']}  99  {ROOM}" in unknown


def _screen(text: str) -> str:
    """Without what differs from run to run: times, numbers, and how long a busy machine took."""
    text = re.sub(r" +taken up only .*\n", "", text)
    text = re.sub(r"(event published) .*", r"\1", text)
    text = re.sub(r" +#[0-9]+(-[0-9]+)?$", "", text, flags=re.MULTILINE)
    return re.sub(r"\d\d:\d\d:\d\d( \([^)]*\))?", "(time)", text)
