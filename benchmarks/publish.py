"""Messages per second, persistent, mandatory and confirmed, 64 under way: what publishing alone can do."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from benchmarks.broker import Bench
from benchmarks.measure import Goal, Sample, Variant
from benchmarks.processes import ROOT, Failed

SECONDS = 4
GOALS = (
    Goal("gateway", "aio-pika", "rate", must=3, aim=3.6),
    Goal("gateway", "librabbitmq (C)", "rate", must=0.7, aim=1),
)


class Said(msgspec.Struct, frozen=True, rename="camel"):
    """What a program prints at its end."""

    operations: int
    seconds: float
    cpu_seconds: float


async def measure(bench: Bench, command: Sequence[str]) -> Sample:
    """Run one program to its end.

    Raises:
        Failed: it ended otherwise, or said that more is stored than there is.
    """
    await bench.purge()
    settings = {"AMQP_URL": bench.url, "BENCH_SECONDS": str(SECONDS)}
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **settings}, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    if process.returncode:
        raise Failed(" ".join(command))
    said = msgspec.json.decode(printed, type=Said)
    if await bench.stored() < said.operations:
        raise Failed(f"{' '.join(command)}: more confirmed than stored")
    return Sample(said.operations, said.seconds, said.cpu_seconds)


async def prepare(bench: Bench, directory: Path) -> tuple[Mapping[str, Variant], Sequence[Goal]]:
    """Ours, the library's way, and the C client's.

    Raises:
        Failed: no compiler, or no librabbitmq (Debian: gcc, librabbitmq-dev).
    """
    await _build(directory)
    return _variants(bench, directory), GOALS


def _variants(bench: Bench, directory: Path) -> Mapping[str, Variant]:

    def python(module: str) -> Variant:
        return lambda: measure(bench, [sys.executable, "-m", f"benchmarks.variants.{module}"])

    def in_c() -> Variant:
        at = urlsplit(bench.url)
        vhost, host, port = unquote(at.path[1:]), at.hostname or "", str(at.port or 5672)
        return lambda: measure(bench, [str(directory / "publish"), host, port, vhost, str(SECONDS)])

    return {
        "gateway": python("publish_gateway"),
        "aio-pika": python("publish_floor"),
        "librabbitmq (C)": in_c(),
    }


async def _build(directory: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    source, made = ROOT / "benchmarks" / "variants" / "publish.c", directory / "publish"
    if compiler is None:
        raise Failed("the C client needs a compiler: apt-get install gcc libc6-dev librabbitmq-dev")
    process = await asyncio.create_subprocess_exec(compiler, "-O2", "-o", str(made), str(source), "-lrabbitmq")
    if await process.wait():
        raise Failed("the C client does not compile: apt-get install librabbitmq-dev")
