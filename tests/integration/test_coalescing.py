"""Webhooks that arrive while their target is being fetched, through the stages on a real broker and both databases."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from ops.broker import Vhost
from schemas.tables import TargetRow
from tests.pipeline import Pipeline, pipeline
from tests.waiting import until

ROOM = "/v1/locations/5/resources/7"


@dataclass
class Held:
    """An answer that was true when it was asked, and comes when the test lets it go."""

    status: int = 200
    body: dict[str, Any] = field(default_factory=lambda: {"ID": "7", "state": "old"})
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, request: web.Request) -> web.Response:
        await self.let_go.wait()
        pages = {"count": 1, "current": 1, "next": None}
        return web.json_response({"data": [self.body], "pages": pages}, status=self.status)


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_a_webhook_that_comes_during_the_fetch_is_answered_by_another(
    vhost: Vhost, database_url: str, status: int
) -> None:
    """T-COALESCE-RACE: whatever the answer under way, one more fetch begins after the webhooks, and one is enough."""
    async with pipeline(vhost.url, database_url) as run:
        held = Held(status)
        run.api.pages[ROOM] = held
        await run.webhook(ROOM)
        await until(lambda: run.api.calls, what="the first call to be under way")
        run.api.pages[ROOM] = {"ID": "7", "state": "new"}
        for _ in range(5):
            await run.webhook(ROOM)
        await until(lambda: _wanted_again(run), what="the webhooks to be taken up")
        assert run.api.calls == [ROOM], "one at a time"

        held.let_go.set()

        await until(lambda: _told(run) == "new", what="the change that the webhooks told of")
        await until(run.at_rest)
        assert run.api.calls == [ROOM, ROOM]
        assert not await run.parked()
        assert {data["state"] for data in run.replayed().values()} == {"new"}


async def _wanted_again(run: Pipeline) -> bool:
    """Whether each of the five webhooks has had its number."""
    [row] = await run.rows(TargetRow)
    return bool(row.wanted >= row.started + 5)


def _told(run: Pipeline) -> str | None:
    return run.events[-1]["data"]["current"]["state"] if run.events else None
