"""The world in which processes are killed, stopped and surprised under load, and what leads them to their points."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import aiohttp

from common.errors import GatewayError
from ops.stack import StackFailed
from sandbox.driver import DriverError
from tests.acceptance.world import Changes, Place, World, again_and_again, answers, webhook_body, world
from tests.fixtures.broker import Vhosts
from tests.fixtures.database import KINDS
from tests.waiting import until

DATABASES = KINDS
CONNECTION, SECOND_CONNECTION = 99, 100
PAGE_SIZE = 2
PAUSE = 0.25
"""Seconds between changes: slow enough for a busy machine to keep up while a process is dead now and then."""


def cells(modes: Iterable[str], points: Iterable[str]) -> list[str]:
    """On each database, in each mode, each point: what tests are parametrised with."""
    modes, points = list(modes), sorted(points)
    return [f"{database} {mode} {point}" for database in DATABASES for mode in modes for point in points]


@contextmanager
def apart(failed: dict[str, str], *names: str) -> Iterator[None]:
    """What fails in the block is the failure of these, not the end of everything; of each the first is kept."""
    try:
        yield
    except (AssertionError, TimeoutError, aiohttp.ClientError, DriverError, GatewayError, StackFailed) as error:
        for name in names:
            failed.setdefault(name, f"{type(error).__name__}: {error}")


@asynccontextmanager
async def places(directory: Path, vhosts: Vhosts, urls: Mapping[str, str]) -> AsyncIterator[dict[str, Place]]:
    """Where a gateway lives on each database that can be had."""
    pool = {database: vhosts.take() for database in urls}
    servers = {**urls, "sqlite": None}  # its file is in the directory
    found = {database: Place(directory / database, pool[database].url, servers[database]) for database in urls}
    for place in found.values():
        place.directory.mkdir()
    try:
        yield found
    finally:
        for vhost in pool.values():
            vhosts.give_back(vhost)


@asynccontextmanager
async def onboarded(place: Place, *, rates: int = 4) -> AsyncIterator[World]:
    """A whole gateway with one connection, and lists of several pages; Syncaroo renews its tokens all the time."""
    settings, flags = {"ACCESS_TOKEN_SECONDS": "8"}, [f"--rates={rates}", f"--page-size={PAGE_SIZE}"]
    async with world(
        place.directory, amqp_url=place.amqp_url, database_url=place.database_url, settings=settings, sandbox=flags
    ) as made:
        await made.onboard(CONNECTION)
        yield made


def changing(made: World) -> AbstractAsyncContextManager[None]:
    """The load of the workers."""
    return again_and_again(Changes(made, CONNECTION), PAUSE)


def telling(made: World) -> AbstractAsyncContextManager[None]:
    """The load of the ingress: what is told while it is away has not changed, and is one location; so it makes good
    nothing that a worker lost."""
    return again_and_again(lambda _: made.sandbox.burst(1, 1, connection_id=CONNECTION, wait=False))


async def lead_to(made: World, point: str, *, other: int = SECOND_CONNECTION) -> str:
    """What nothing brings about by itself: a connection of another user, answers that fail, what is gone, a resync.

    The result is the list that a walk was asked for, if one was.
    """
    match point:
        case "provider.code_redeemed":
            await until(lambda: answers(made.stack.url), 20, what="the ingress to answer")
            with suppress(AssertionError, aiohttp.ClientError, GatewayError):
                await made.connect(other, has_listings=False)
        case "fetch.walk_kept":
            return await _tell_list(made, (await _long_lists(made))[-1])
        case "fetch.putting_off_commits":
            await made.sandbox.fault("api_status", status=500)
        case "fetch.giving_up_commits":
            # Of what a webhook waits for: what a resync alone asks for is not parked. A later page only begins again.
            url = (await _long_lists(made))[0]
            await made.sandbox.fault("api_status", status=403, page=1, match=f"{url}/")
            await _tell_list(made, url)
        case "fetch.gone_published":
            url = (await _long_lists(made))[0]
            await made.sandbox.change("remove", (await made.sandbox.world()).collections[url][0])
        case "fetch.before_suspects_commit" | "fetch.suspected":
            # Of the oldest rooms: a new one's rates may not be known yet. A webhook may show of one that it is gone.
            for url in sorted(await _long_lists(made))[:3]:
                await made.sandbox.change("remove", (await made.sandbox.world()).collections[url][0], webhook=False)
                await _tell_list(made, url)
        case "fetch.resync_half_marked":
            location_id = next(iter((await made.sandbox.connections())[CONNECTION].locations.values()))
            body = webhook_body(CONNECTION, None, "rates", location_id=location_id)
            await made.sandbox.webhook(CONNECTION, body)
    return ""


async def _long_lists(made: World) -> list[str]:
    """The lists of rates that have more than one page, the longest last; without one of their rates, the first ones
    have one page, and `Changes` asks for them no more."""
    lists = (await made.sandbox.world()).collections
    long = [url for url in lists if url.endswith("/rates") and len(lists[url]) > PAGE_SIZE]
    return sorted(long, key=lambda url: (len(lists[url]), url))


async def _tell_list(made: World, url: str) -> str:
    """A webhook for the list, in a spelling that nobody else uses; gives that."""
    own = f"{url}/"
    await made.sandbox.webhook(CONNECTION, webhook_body(CONNECTION, own, "rates"), url=own)
    return own


async def went_on(made: World, url: str) -> bool:
    """Whether the walk whose process died was taken up where it was, not at its first page."""
    return [call.url for call in (await made.sandbox.records()).calls].count(url) == 1


async def at_work(made: World, name: str, lives: int) -> None:
    """Returns when the process runs for the so-manieth time, the ingress also answers."""
    await until(lambda: made.stack.logs(name).count("process.started") >= lives, 20, what=f"{name} to start")
    if name.startswith("ingress"):
        await until(lambda: answers(made.stack.url), 20, what=f"{name} to answer")
