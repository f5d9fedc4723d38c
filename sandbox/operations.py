"""What can be done to the stand-in while it runs: the same for the control API, the front page and its own life.

A change flows: lag, when ordered → world → records → webhooks to whom it concerns, or lost on purpose.
"""

import asyncio
import contextlib
from itertools import cycle, islice
from random import Random

from msgspec import UNSET, Struct, UnsetType, field

from sandbox.platform import Platform
from sandbox.state import Connection, Sandbox
from sandbox.webhooks import Telling
from sandbox.world import Change, UnknownItemError


class ChangeOrder(Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Change the world; without `url` it picks an item itself."""

    kind: str
    url: str | None = None
    value: str | float | int | None = None
    webhook: bool | UnsetType = UNSET
    """False: the webhook is lost. By default all kinds but `move`, which alters no item, send one."""
    connection_id: int | None = None
    """Tell this connection only."""
    wait: bool = True
    """Answer only when the webhooks have been answered."""


class ChangeDone(Struct, kw_only=True, rename="camel"):
    """`order` is the number of the change in the records; `gone` are the URLs of items that went with it."""

    kind: str
    url: str
    order: int
    deleted: bool
    gone: list[str] = field(default_factory=list)


class BurstOrder(Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """`count` webhooks over `targets` pairs of connection and item, in turns."""

    count: int = 100
    targets: int = 20
    connection_id: int | None = None
    concurrency: int | None = None
    shuffle: bool = False
    wait: bool = True


class StormOrder(Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Very many changes, as fast as their webhooks are answered; which kinds and items, the seed decides."""

    changes: int = 1000
    mix: dict[str, int]
    """A kind's weight: how often it comes, compared with the others."""
    concurrency: int | None = None
    """Webhooks under way at once; by default the configured number."""


class Operations:
    def __init__(self, sandbox: Sandbox, platform: Platform) -> None:
        self._sandbox = sandbox
        self._platform = platform
        self._life: asyncio.Task[None] | None = None

    async def change(self, order: ChangeOrder) -> ChangeDone:
        """Raises UnknownItemError."""
        if fault := self._sandbox.faults.take("api_lag"):
            self._sandbox.world.lag(fault.seconds)
        change = self._sandbox.world.apply(order.kind, self._sandbox.path(order.url), order.value)
        done = self._recorded(change)
        if order.webhook is not UNSET or change.kind != "move":
            lost = order.webhook is False
            if change.kind == "move":  # what has changed is the list
                change = self._sandbox.world.describe(change.path.rpartition("/")[0], change.kind)
            telling = self._platform.sender.tell(change, cause=change.kind, lost=lost, only=order.connection_id)
            await telling if order.wait else self._platform.in_background(telling)
        return done

    def _recorded(self, change: Change) -> ChangeDone:
        url = self._sandbox.url(change.path)
        gone = [self._sandbox.url(path) for path in change.gone]
        for each in gone or [url]:
            self._sandbox.records.change(change.kind, each, change.deleted)
        return ChangeDone(
            kind=change.kind, url=url, order=self._sandbox.records.last, deleted=change.deleted, gone=gone
        )

    async def storm(self, order: StormOrder) -> int:
        """The number of changes done, once all their webhooks have been answered or held back."""
        dice = Random(f"storm {self._sandbox.config.seed}")
        kinds = iter(dice.choices(list(order.mix), weights=list(order.mix.values()), k=order.changes))
        done = 0

        async def some() -> None:
            nonlocal done
            for kind in kinds:
                with contextlib.suppress(UnknownItemError):  # nothing to restore yet
                    await self.change(ChangeOrder(kind=kind, webhook=True))
                    done += 1

        await asyncio.gather(*(some() for _ in range(order.concurrency or self._sandbox.config.concurrency)))
        return done

    async def burst(self, order: BurstOrder) -> int:
        """The number of webhooks sent or, without `wait`, begun."""
        targets = self._targets(order)[: order.targets]
        told = list(islice(cycle(targets), order.count)) if targets else []
        if order.shuffle:
            Random(self._sandbox.config.seed).shuffle(told)
        telling = self._platform.sender.tell_all(told, cause="burst", concurrency=order.concurrency)
        await telling if order.wait else self._platform.in_background(telling)
        return len(told)

    def _targets(self, order: BurstOrder) -> list[Telling]:
        """Items that connections have matched, one connection's after another's; rates come through their rooms."""
        return [
            (connection, change)
            for connection in self.confirmed()
            if order.connection_id in (None, connection.connection_id)
            for change in self._items(connection)
        ]

    def _items(self, connection: Connection) -> list[Change]:
        world = self._sandbox.world
        changes = [world.describe(path) for path, _ in world.items()]
        return [
            change
            for change in changes
            if (change.resource in connection.resources if change.resource else change.location in connection.locations)
        ]

    def confirmed(self) -> list[Connection]:
        return [c for c in self._sandbox.connections.values() if c.state == "confirmed"]

    def live(self, every: float) -> None:
        """Random changes by itself, every so many seconds; 0 stops them."""
        if self._life is not None:
            self._life.cancel()
        self._life = asyncio.create_task(self._live(every)) if every > 0 else None

    async def _live(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            with contextlib.suppress(UnknownItemError):  # nothing is left to change
                await self.change(ChangeOrder(kind="random", wait=False))

    async def quiet(self) -> None:
        """Stop living; return when nothing is under way."""
        self.live(0)
        await self._platform.quiet()

    async def close(self) -> None:
        self.live(0)
        await self._platform.close()
