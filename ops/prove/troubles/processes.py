"""Our own processes are killed, stand still, or are updated."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial

import aiohttp

from ops.demo.stage import StoryFailed
from ops.prove.plan import Kind
from ops.prove.troubles.scene import ROLES, Happen, Scene

STARTS_SECONDS = 60.0
ANSWERS = aiohttp.ClientTimeout(total=2)


def happenings() -> dict[Kind, Happen]:
    """One of each role; of workers there is a second one, which takes over what is leased (15 to 20 s)."""
    found: dict[Kind, Happen] = {}
    for role in ROLES:
        found[Kind(f"{role} killed", (role,))] = partial(killed, role)
        found[Kind(f"{role} frozen", (role,), (1.0, 20.0 if role == "ingress" else 30.0))] = partial(frozen, role)
        found[Kind(f"{role} updated", (role,))] = partial(ended, role)
    return found


@asynccontextmanager
async def killed(role: str, scene: Scene) -> AsyncIterator[None]:
    """SIGKILL, and started again at the end."""
    async with _unaware(role, scene), _away(role, scene):
        with scene.down(f"{role}-1") as name:
            await scene.stage.stack.kill(name)
            try:
                yield
            finally:
                await scene.stage.stack.restart(name)


@asynccontextmanager
async def frozen(role: str, scene: Scene) -> AsyncIterator[None]:
    """SIGSTOP, and SIGCONT at the end: it does not know that time has passed."""
    async with _unaware(role, scene), _away(role, scene):
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
    async with _away(role, scene):
        with scene.down(f"{role}-1") as name:
            code = await scene.stage.stack.terminate(name)
            try:
                if code not in (0, -signal.SIGTERM):  # the latter is one that was still being loaded
                    raise StoryFailed(f"{name} was asked to end and did not, in its time (exit code {code})")
                yield
            finally:
                await scene.stage.stack.restart(name)


def _unaware(role: str, scene: Scene) -> AbstractAsyncContextManager[None]:
    """Whoever asks for tokens may not know what was answered."""
    return scene.noted(scene.crashes) if role == "token" else nullcontext()


@asynccontextmanager
async def _away(role: str, scene: Scene) -> AsyncIterator[None]:
    """Whoever takes webhooks does not, until it listens again."""
    if role != "ingress":
        yield
        return
    async with scene.noted(scene.unheard):
        yield
        try:
            async with asyncio.timeout(STARTS_SECONDS):
                await _listening(scene)
        except TimeoutError:
            raise StoryFailed(f"the ingress does not listen again; the logs are in {scene.stage.logs}") from None


async def _listening(scene: Scene) -> None:
    while True:
        with suppress(aiohttp.ClientError, TimeoutError):
            async with aiohttp.request("GET", f"{scene.stage.stack.url}/healthz", timeout=ANSWERS):
                return
        await asyncio.sleep(0.05)
