"""Programs under measurement: started, asked for their processor time and memory, ended."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil  # type: ignore[import-untyped]  # it ships no types

from benchmarks.load import Done, Order

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".venv-peers" / "bin"
START_SECONDS = 60.0


class Failed(Exception):
    """A program did not start, or ended; the text says what it printed last."""


@dataclass(frozen=True)
class Usage:
    """Of a process and its children: seconds of both kinds of processor time, bytes in memory."""

    cpu_seconds: float
    rss: int


def usage(pid: int) -> Usage:
    """What it has used so far."""
    root = psutil.Process(pid)
    seconds, rss = 0.0, 0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system
            rss += process.memory_info().rss
    return Usage(seconds, rss)


@asynccontextmanager
async def program(
    command: Sequence[str], environment: Mapping[str, str], port: int | None, log: Path
) -> AsyncIterator[int]:
    """A program that listens on the port, if it is one that listens, until the end of the block → its process id."""
    with log.open("ab") as said:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, **environment},
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        if port is not None:
            await _listens(process, port, log)
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(10):
                await process.wait()
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _listens(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        if process.returncode is not None or time.monotonic() > deadline:
            raise Failed(_end_of(log))
        await asyncio.sleep(0.05)


def _end_of(log: Path) -> str:
    return f"{log.name}: {log.read_text(errors='replace')[-600:]}"


async def load(order: Order) -> Done:
    """Run the load in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.load"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate(msgspec.json.encode(order))
    if process.returncode:
        raise Failed("the load")
    return msgspec.json.decode(said, type=Done)
