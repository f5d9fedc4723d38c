"""What the story plays on: broker, store, the stand-in and the gateway's processes, set up, watched, cleared away."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import aiohttp

from common.errors import GatewayError
from ops.admin import AdminApi
from ops.broker import Broker
from ops.demo.subscriber import Event, Subscriber
from ops.demo.teller import Teller
from ops.ledger import Evidence
from ops.stack import WORKERS, Stack, environment, sandbox_arguments
from sandbox.driver import DriverError, SandboxDriver

T = TypeVar("T")

QUICK = {
    "TARGET_INTERVAL": "200ms",
    "RECHECK_AFTER": "3s",
    "RETRY_DELAYS": "500ms,1s,2s",
    "API_RATE_PER_SECOND": "100",
}
"""Smaller than the defaults, so that nobody waits; told in the output."""


@dataclass(frozen=True)
class StandIn:
    """More flags of the stand-in; `url` is where it is driven, if that is not where we call it."""

    flags: Sequence[str] = ()
    url: str | None = None


class StoryFailed(GatewayError):
    """Something did not happen; the text says what, and where the logs are."""


@dataclass
class Stage:
    """Everything the steps need; `logs` is where the processes write."""

    tell: Teller
    stack: Stack
    sandbox: SandboxDriver
    admin: AdminApi
    subscriber: Subscriber
    logs: Path
    names: list[str] = field(default_factory=list)

    async def until(self, check: Callable[[], Awaitable[T | None]], what: str, seconds: float = 20.0) -> T:
        """Ask again and again → the first answer that is true.

        Raises:
            StoryFailed: not within `seconds`, or a process has ended meanwhile.
        """
        deadline = time.monotonic() + seconds
        while True:
            value = await check()
            if value:
                return value
            self.complain_of_the_dead()
            if time.monotonic() > deadline:
                raise StoryFailed(f"Within {seconds:g} s this did not happen: {what}. The logs are in {self.logs}.")
            await asyncio.sleep(0.1)

    def complain_of_the_dead(self) -> None:
        """Raises StoryFailed when a process ended by itself; those that we killed are no surprise."""
        for name in self.names:
            code = self.stack.exit_code(name)
            if code is not None and code >= 0:
                last = "\n".join(self.stack.logs(name).splitlines()[-15:])
                raise StoryFailed(f"{name} ended with exit code {code}; all it said is in {self.logs}:\n{last}")

    async def evidence(self) -> Evidence:
        """What the checker needs, as it is now."""
        return Evidence(
            records=await self.sandbox.records(),
            world=await self.sandbox.world(),
            events=list(self.subscriber.events),
            listings=await self.admin.listings(),
            dead_letters=await self.admin.dead_letters(),
            targets=await self.admin.targets(),
        )


def fresh(work: Path) -> Path:
    """An empty directory for logs and database; what the last run left is removed."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return work.resolve()


@asynccontextmanager
async def staged(
    tell: Teller,
    broker: Broker,
    work: Path,
    *,
    database_url: str | None = None,
    ports: tuple[int, int] | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    more: Mapping[str, str] | None = None,
    stand_in: StandIn = StandIn(),
    breaks: bool = False,
    through: str | None = None,
) -> AsyncIterator[Stage]:
    """Set up and start everything; end everything at the end of the block. `ports`: the ingress's and the stand-in's;
    `more` settings have the last word. What `breaks` is a broker that will be away now and then. Processes run
    `through` a module, if one is named.

    Raises:
        StoryFailed: the set-up failed or a process did not start.
    """
    http_port, sandbox_port = ports or (None, None)
    settings = environment(
        amqp_url=broker.url,
        database_url=database_url or f"sqlite+aiosqlite:///{work}/gateway.db",
        http_port=http_port,
        sandbox_port=sandbox_port,
        management=broker.management,
        settings={**QUICK, **(more or {})},
    )
    async with AsyncExitStack() as ending:
        stack = await ending.enter_async_context(Stack(settings, work / "logs", through=through))
        with tell.step("gateway setup: store and broker"):
            await _set_up(stack)
        queue = f"subscriber-{secrets.token_hex(4)}" if breaks else None
        stage = Stage(
            tell=tell,
            stack=stack,
            sandbox=await ending.enter_async_context(SandboxDriver(stand_in.url or stack.sandbox_url)),
            admin=await ending.enter_async_context(AdminApi(stack.url, settings["ADMIN_TOKEN"])),
            subscriber=await ending.enter_async_context(Subscriber(broker.url, on_event, queue=queue)),
            logs=stack.directory,
        )
        roles = ["ingress", *WORKERS]
        with tell.step(f"processes: sandbox, {', '.join(roles)}"):
            flags = sandbox_arguments(settings, *stand_in.flags)
            stage.names += await stack.start("sandbox", arguments=flags)
            for role in roles:
                stage.names += await stack.start(role)
            await stage.until(lambda: _answers(stage.sandbox), "the stand-in answers", 30)
            await stack.wait_ready()
        yield stage


async def _set_up(stack: Stack) -> None:
    done = await stack.run("-m", "ops", "setup", timeout=90)
    (stack.directory / "setup.log").write_text(done.output)
    if done.code:
        raise StoryFailed(f"gateway setup ended with exit code {done.code}:\n{done.output}")


async def _answers(sandbox: SandboxDriver) -> bool:
    try:
        await sandbox.config()
    except (aiohttp.ClientError, OSError, DriverError):
        return False
    return True
