"""Each kind of trouble: it begins when its block begins, and is mended when that ends."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import asyncpg  # type: ignore[import-untyped, unused-ignore]

from ops.broker import PrivateNode
from ops.demo.stage import Stage, StoryFailed
from ops.prove.foreign import Foreign
from ops.prove.plan import ROLES, Kind

PORTION = 0.3
"""Of calls or webhooks that are hit while something is wrong with them."""


TAIL = 2000
"""Bytes at the end of a log."""


@dataclass(frozen=True)
class Scene:
    """What there is to be troubled."""

    stage: Stage
    node: PrivateNode
    database_url: str
    foreign: Foreign

    gone: set[str] = field(default_factory=set)
    """Processes that are down on purpose."""

    @contextmanager
    def down(self, name: str) -> Iterator[str]:
        """While it is down on purpose; raises StoryFailed when it, or another one, is down by itself."""
        self.look_for_the_dead()
        self.gone.add(name)
        try:
            yield name
        finally:
            self.gone.discard(name)

    def look_for_the_dead(self) -> None:
        """Raises StoryFailed when a process has ended that nobody ended."""
        for name in self.stage.names:
            if name not in self.gone and (code := self.stage.stack.exit_code(name)) is not None:
                raise StoryFailed(f"{name} ended by itself, with exit code {code}; the logs are in {self.stage.logs}")

    @property
    def is_postgresql(self) -> bool:
        """Whether the store is a server."""
        return self.database_url.startswith("postgresql")


Happen = Callable[[Scene], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def killed(role: str, scene: Scene) -> AsyncIterator[None]:
    """SIGKILL, and started again at the end."""
    with scene.down(f"{role}-1") as name:
        await scene.stage.stack.kill(name)
        try:
            yield
        finally:
            await scene.stage.stack.restart(name)


@asynccontextmanager
async def frozen(role: str, scene: Scene) -> AsyncIterator[None]:
    """SIGSTOP, and SIGCONT at the end: it does not know that time has passed."""
    scene.stage.stack.freeze(f"{role}-1")
    try:
        yield
    finally:
        scene.stage.stack.resume(f"{role}-1")


@asynccontextmanager
async def ended(role: str, scene: Scene) -> AsyncIterator[None]:
    """SIGTERM, as for an update.

    Raises:
        StoryFailed: it did not end in good order.
    """
    with scene.down(f"{role}-1") as name:
        code = await scene.stage.stack.terminate(name)
        try:
            loading = code == -signal.SIGTERM  # it has not come so far as to hear it
            if not loading and (code or "process.stopped" not in scene.stage.stack.logs(name)[-TAIL:]):
                raise StoryFailed(f"{name} was asked to end and did not, in its time (exit code {code})")
            yield
        finally:
            await scene.stage.stack.restart(name)


@asynccontextmanager
async def broker_killed(scene: Scene) -> AsyncIterator[None]:
    """As a power cut would."""
    await asyncio.to_thread(scene.node.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(scene.node.start)


@asynccontextmanager
async def broker_frozen(scene: Scene) -> AsyncIterator[None]:
    """Connections stay open, nothing answers."""
    scene.node.freeze()
    try:
        yield
    finally:
        scene.node.resume()


@asynccontextmanager
async def broker_alarm(scene: Scene) -> AsyncIterator[None]:
    """A memory alarm: the broker reads nothing from who publishes."""
    await asyncio.to_thread(scene.node.starve)
    try:
        yield
    finally:
        await asyncio.to_thread(scene.node.feed)


@asynccontextmanager
async def broker_disk_full(scene: Scene) -> AsyncIterator[None]:
    """A disk alarm."""
    await asyncio.to_thread(scene.node.ctl, "set_disk_free_limit", "999GB")
    try:
        yield
    finally:
        await asyncio.to_thread(scene.node.ctl, "set_disk_free_limit", "50MB")


@asynccontextmanager
async def connections_closed(scene: Scene) -> AsyncIterator[None]:
    """All that the broker has."""
    await asyncio.to_thread(scene.node.ctl, "close_all_connections", "as ordered")
    yield


@asynccontextmanager
async def store_locked(scene: Scene) -> AsyncIterator[None]:
    """Somebody holds what everybody writes: the file's lock, or the listings' table."""
    if scene.is_postgresql:
        holding = await asyncpg.connect(_plain(scene.database_url))
        try:
            async with holding.transaction():
                await holding.execute("LOCK TABLE listing IN EXCLUSIVE MODE")
                yield
        finally:
            await holding.close()
    else:
        path = scene.database_url.partition("///")[2]
        with closing(sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)) as file:
            await asyncio.to_thread(file.execute, "BEGIN IMMEDIATE")
            yield  # what is closed is rolled back


@asynccontextmanager
async def store_ended(scene: Scene) -> AsyncIterator[None]:
    """The server ends every session of the database."""
    connection = await asyncpg.connect(_plain(scene.database_url))
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    finally:
        await connection.close()
    yield


@asynccontextmanager
async def wrong(kind: str, scene: Scene, **parameters: Any) -> AsyncIterator[None]:
    """Something is wrong with Syncaroo, its API, its tokens or its webhooks."""
    if parameters.pop("foreign", False):
        parameters["url"] = scene.foreign.url
    await scene.stage.sandbox.fault(kind, **{"count": None, "probability": PORTION, **parameters})
    try:
        yield
    finally:
        await scene.stage.sandbox.clear_faults(kind)


@asynccontextmanager
async def tokens_refused(scene: Scene) -> AsyncIterator[None]:
    """All access tokens that we hold are refused from now on."""
    await scene.stage.sandbox.expire_access()
    yield


def _plain(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(scheme="postgresql").geturl()


def happenings(*, postgresql: bool) -> dict[Kind, Happen]:
    """All kinds there are for such a store."""
    found: dict[Kind, Happen] = {}
    for role in ROLES:
        found[Kind(f"{role} killed", role)] = partial(killed, role)
        found[Kind(f"{role} frozen", role, (1.0, 20.0))] = partial(frozen, role)
        found[Kind(f"{role} updated", role)] = partial(ended, role)
    found |= {
        Kind("broker killed", "broker"): broker_killed,
        Kind("broker frozen", "broker", (1.0, 15.0)): broker_frozen,
        Kind("broker out of memory", "broker"): broker_alarm,
        Kind("broker's disk full", "broker"): broker_disk_full,
        Kind("broker's connections closed", "broker"): connections_closed,
        Kind("store locked", "store", (1.0, 12.0)): store_locked,
        Kind("tokens refused", "tokens"): tokens_refused,
    }
    if postgresql:
        found[Kind("store's sessions ended", "store")] = store_ended
    for name, kind, parameters in SYNCAROO:
        found[Kind(name, kind)] = partial(wrong, kind, **parameters)
    return found


SYNCAROO: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("API answers 503", "api_status", {"status": 503}),
    ("API resets connections", "api_reset", {}),
    ("API answers half", "api_truncate", {}),
    ("API answers HTML", "api_html", {}),
    ("API is slow", "api_slow", {"seconds": 3.0}),
    ("API shows what was", "api_stale", {"seconds": 2.0}),
    ("API moves items between pages", "api_move", {"page": 1}),
    ("API redirects elsewhere", "api_redirect", {"foreign": True}),
    ("API's next page is elsewhere", "api_next", {"value": "foreign", "foreign": True}),
    ("tokens answer 503", "token_status", {"status": 503}),
    ("tokens are slow", "token_slow", {"seconds": 2.0}),
    ("tokens reset connections", "token_drop", {"consume": False}),
    ("webhooks get lost", "webhook_lost", {}),
    ("webhooks come twice", "webhook_double", {}),
    ("webhooks come out of order", "webhook_reorder", {}),
    ("webhooks with a wrong hash", "webhook_wrong_hash", {}),
    ("webhooks with a wrong token", "webhook_bad_token", {}),
    ("webhooks lead elsewhere", "webhook_api_url", {"foreign": True}),
)
