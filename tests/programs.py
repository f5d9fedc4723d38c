"""Programs that tests start: what they print is there while they run, and none outlives its test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence

from tests.waiting import within


class Program:
    """A running program; `lines` are what it has printed so far, errors among them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.lines: list[str] = []
        self._process = process
        self._reading = asyncio.create_task(self._read())

    @property
    def ended(self) -> bool:
        """Whether it is over, by itself or killed."""
        return self._process.returncode is not None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def kill(self) -> None:
        """End it as a power cut would (SIGKILL), and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self.wait()

    async def wait(self, timeout: float = 30.0) -> int:
        """Its exit code, once it has ended and all that it printed is in `lines`."""
        async with within(timeout):
            await self._reading
            return await self._process.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.lines.append(line.decode(errors="replace").rstrip("\n"))


def _hear_ctrl_c() -> None:
    """Whoever starts the tests in the background has them, and all that they start, ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.asynccontextmanager
async def program(command: Sequence[str], environment: Mapping[str, str]) -> AsyncIterator[Program]:
    """Start it, with these variables beside the test's own; killed at the end when it still runs."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=2**24,
        preexec_fn=_hear_ctrl_c,
    )
    started = Program(process)
    try:
        yield started
    finally:
        await started.kill()
