"""The fetcher on a real store, against an API on loopback that answers as it is told and writes down what it saw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from common.broker.outgoing import Outgoing
from common.broker.retry import RetryPolicy
from common.codec import decode, dumps
from common.crypto import TokenCipher
from common.errors import BrokerUnavailable
from common.ids import new_id
from common.store.engine import Store
from common.store.targets import Wanted, want
from common.urls import AllowedHosts
from schemas.messages import REGISTRY, Message, PageFetched, PlatformIds, Reason
from schemas.tables import GrantRow, ParkedRow, TargetRow, table_of
from tests.keys import NEW
from workers.fetch.client import SyncarooApi
from workers.fetch.fetching import Fetcher
from workers.fetch.store.claims import ClaimStore
from workers.fetch.store.grants import GrantStore
from workers.fetch.store.outcomes import OutcomeStore
from workers.fetch.store.suspects import SuspectStore

CIPHER = TokenCipher([NEW])
RETRY = RetryPolicy([timedelta(seconds=2), timedelta(seconds=10)], timedelta(hours=1))

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

_grant = table_of(GrantRow)


@dataclass
class Api:
    """Answers by path and query: one answer for ever, or a list of them, the last one for ever; else 404."""

    base: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and query, and the `Authorization` that came with it."""

    @property
    def host(self) -> str:
        return self.base.removeprefix("http://")

    @property
    def calls(self) -> list[str]:
        return [path for path, _ in self.seen]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.raw_path, request.headers.get("Authorization")))
        answer = self.answers.get(request.raw_path, 404)
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
            given: web.StreamResponse = await answer(request)
            return given
        return web.Response(status=answer) if isinstance(answer, int) else web.json_response(answer)


@asynccontextmanager
async def serving(api: Api | None = None) -> AsyncIterator[Api]:
    """The API on a port of its own."""
    api = api or Api()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.answer)
    server = TestServer(app)
    await server.start_server()
    api.base = str(server.make_url("")).rstrip("/")
    try:
        yield api
    finally:
        await server.close()


def client_of(*apis: Api, **more: Any) -> SyncarooApi:
    """The client that may go to these."""
    settings = {"allow_private": True, "concurrency": 4, **more}
    return SyncarooApi(AllowedHosts([api.host for api in apis], allow_http=True), **settings)


class Published:
    """Takes messages in the broker's place, those of `refused` not."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.refused: set[int] = set()
        """The how-manieth publishes, from 0, that are not confirmed."""
        self.asked = 0

    async def publish(self, message: Outgoing) -> None:
        self.asked += 1
        if self.asked - 1 in self.refused:
            raise BrokerUnavailable("broker: as ordered")
        self.messages.append(decode(message.body, REGISTRY[message.headers["schema"]]))

    @property
    def pages(self) -> list[PageFetched]:
        return [one for one in self.messages if isinstance(one, PageFetched)]

    def ids(self) -> list[str]:
        """The ids of all items, in the order of their publishing."""
        return [str(item["ID"]) for page in self.pages for item in page.items if "ID" in item]


@dataclass
class Bench:
    """One fetch process, without its loops."""

    api: Api
    evil: Api
    """A host that no token may reach."""
    store: Store
    published: Published
    client: SyncarooApi

    async def authorise(self, token: str, version: int, *, refused: timedelta | None = None) -> None:
        """Put a pair into the store, as the token worker does; `refused`: how long ago one was refused."""
        now = datetime.now(UTC)
        async with self.store.transaction() as transaction:
            await transaction.execute(_grant.delete())
            await transaction.execute(
                _grant.insert().values(
                    account="syncaroo",
                    state="active",
                    sealed_pair=CIPHER.seal(dumps({"accessToken": token, "refreshToken": "r"})),
                    rt_version=version,
                    attempts=0,
                    refused_at=None if refused is None else now - refused,
                    expires_at=now + timedelta(minutes=10),
                    refresh_at=now + timedelta(minutes=5),
                )
            )

    async def want(self, path: str, reason: Reason = "webhook") -> None:
        wanted = Wanted(99, self.api.base + path, PlatformIds(location_id="1198"), reason, "d1")
        async with self.store.transaction() as transaction:
            await want(transaction, [wanted])

    async def attempt(self, at_most: int = 1, *, together: bool = False) -> list[Any]:
        """Claim what is wanted, whatever back-off it has, and fetch it, one after another or together.

        Gives the targets afterwards.
        """
        async with self.store.transaction() as transaction:
            await transaction.execute(
                table_of(TargetRow).update().values(not_before=datetime.now(UTC), lease_until=None)
            )
        me = new_id()
        claims = ClaimStore(self.store, me, rate=1000.0, interval=timedelta(0))
        outcomes = OutcomeStore(self.store, me, rate=1000.0)
        suspects, grants = SuspectStore(self.store, me, brake=1.0), GrantStore(self.store)
        fetcher = Fetcher(outcomes, suspects, grants, self.client, self.published, CIPHER, RETRY)
        found, grant = await claims.claim(at_most)
        if grant is None:
            return await self.targets()
        if together:
            await asyncio.gather(*(fetcher.fetch(claim, grant) for claim in found))
        else:
            for claim in found:
                await fetcher.fetch(claim, grant)
        return await self.targets()

    async def targets(self) -> list[Any]:
        """All targets, in the order of their URLs."""
        return sorted(await self.rows(TargetRow), key=lambda row: row.url)

    async def rows(self, table: type[Any]) -> list[Any]:
        async with self.store.reading() as transaction:
            return list(await transaction.rows(table_of(table).select()))

    async def parked(self) -> list[str]:
        return sorted(row.reason for row in await self.rows(ParkedRow))


@asynccontextmanager
async def bench(database_url: str) -> AsyncIterator[Bench]:
    """A store with a token in it, an API that may be called, and one that may not."""
    store = Store(database_url)
    async with serving() as api, serving() as evil, client_of(api) as client:
        made = Bench(api, evil, store, Published(), client)
        await made.authorise("access-1", 1)
        yield made
        await store.close()


def pages_of(*pages: list[Any], path: str, base: str = "") -> dict[str, Any]:
    """A well-behaved list: the answers by their paths."""
    urls = [path, *(f"{path}?page={number}" for number in range(2, len(pages) + 1))]
    nexts = [f"{base}{url}" for url in urls[1:]] + [None]
    return {
        url: {"data": items, "pages": {"count": len(pages), "current": number, "next": following}}
        for number, (url, items, following) in enumerate(zip(urls, pages, nexts, strict=True), 1)
    }
