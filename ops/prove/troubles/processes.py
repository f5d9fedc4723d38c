"""Our own processes are killed, stand still, or are updated."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial

from ops.demo.stage import StoryFailed
from ops.prove.plan import Kind
from ops.prove.troubles.scene import ROLES, Happen, Scene


def happenings() -> dict[Kind, Happen]:
    """One of each role; of some there is a second one."""
    found: dict[Kind, Happen] = {}
    for role in ROLES:
        found[Kind(f"{role} killed", (role,))] = partial(killed, role)
        found[Kind(f"{role} frozen", (role,), (1.0, 20.0))] = partial(frozen, role)
        found[Kind(f"{role} updated", (role,))] = partial(ended, role)
    return found


@asynccontextmanager
async def killed(role: str, scene: Scene) -> AsyncIterator[None]:
    """SIGKILL, and started again at the end."""
    async with _noted(role, scene):
        with scene.down(f"{role}-1") as name:
            await scene.stage.stack.kill(name)
            try:
                yield
            finally:
                await scene.stage.stack.restart(name)


@asynccontextmanager
async def frozen(role: str, scene: Scene) -> AsyncIterator[None]:
    """SIGSTOP, and SIGCONT at the end: it does not know that time has passed."""
    async with _noted(role, scene):
        scene.stage.stack.freeze(f"{role}-1")
        try:
            yield
        finally:
            scene.stage.stack.resume(f"{role}-1")


def _noted(role: str, scene: Scene) -> AbstractAsyncContextManager[None]:
    """Whoever asks for tokens may not know what was answered."""
    return scene.noted(scene.crashes) if role == "token" else nullcontext()


@asynccontextmanager
async def ended(role: str, scene: Scene) -> AsyncIterator[None]:
    """SIGTERM, as for an update.

    Raises:
        StoryFailed: it did not end in good order.
    """
    with scene.down(f"{role}-1") as name:
        code = await scene.stage.stack.terminate(name)
        try:
            if code not in (0, -signal.SIGTERM):  # the latter is one that was still being loaded
                raise StoryFailed(f"{name} was asked to end and did not, in its time (exit code {code})")
            yield
        finally:
            await scene.stage.stack.restart(name)
