"""What there is to be troubled, and what is known of it from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from ops.broker import PrivateNode
from ops.demo.stage import Stage, StoryFailed
from ops.prove.clock import Clock
from ops.prove.foreign import Foreign
from ops.prove.wires import Wires

ROLES = ("ingress", "token", "fetch", "reconcile", "relay")
LATEST = 2**62
"""After the last number of the stand-in's counter."""


@dataclass(frozen=True)
class Scene:
    """Everything that can go wrong; `database_url` leads there without a detour."""

    stage: Stage
    node: PrivateNode
    database_url: str
    foreign: Foreign
    wires: Wires
    clocks: Mapping[str, Clock]
    """Those that can be put, by their names."""

    gone: set[str] = field(default_factory=set)
    """Processes that are down on purpose."""
    doubtful: list[tuple[int, int]] = field(default_factory=list)
    """From and to which number of the stand-in's counter its answers may have been lost on their way."""
    crashes: list[tuple[int, int]] = field(default_factory=list)
    """Likewise: when somebody who asks for tokens was dead, or stood still."""
    unheard: list[tuple[int, int]] = field(default_factory=list)
    """Likewise: when nobody was there to take webhooks, or to be heard."""
    unfit: list[tuple[int, int]] = field(default_factory=list)
    """Likewise: when the token of a webhook may have been wrong."""

    @property
    def is_postgresql(self) -> bool:
        """Whether the store is a server."""
        return self.database_url.startswith("postgresql")

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

    @asynccontextmanager
    async def noted(self, intervals: list[tuple[int, int]]) -> AsyncIterator[None]:
        """From and to which number of the stand-in's counter the block lasted."""
        began = await self.number()
        try:
            yield
        finally:
            intervals.append((began, await self.number()))

    async def number(self) -> int:
        """Where the stand-in's counter stands."""
        return (await self.stage.sandbox.records(after=LATEST)).order


Struck = Callable[[], Awaitable[bool]]
Happen = Callable[[Scene], AbstractAsyncContextManager[bool | Struck | None]]
"""Begins when its block begins, and is mended when that ends; False when it could not be brought about, or what says at
the end of the block whether it was."""
