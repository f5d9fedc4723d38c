"""Pages per second, of 100 listings and 54 kB, 8 requests under way: what one fetch worker makes of Syncaroo's answers.

Neither broker nor store take part: `gateway` ends with the message that would be published.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp
import msgspec

from benchmarks.broker import Bench
from benchmarks.measure import Goal, Sample, Variant
from benchmarks.processes import ROOT, Failed, program
from benchmarks.publish import Said
from ops.children import free_port

LISTINGS = 100
SECONDS = 3
PATH = "/v1/locations/1198/resources"
GOALS = (Goal("gateway", "no decode", "rate", must=0.6, aim=0.75),)


async def served(url: str) -> int:
    """How many pages the API has sent."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/served") as answer:
        return int(await answer.read())


async def measure(directory: Path, module: str, *arguments: str) -> Sample:
    """Run one program to its end, against an API of its own.

    Raises:
        Failed: it ended otherwise, or counted more pages than were sent.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    api = [sys.executable, "-m", "benchmarks.variants.pages", str(port), str(LISTINGS), "0"]
    command = [sys.executable, "-m", f"benchmarks.variants.{module}", *arguments]
    settings = {"BENCH_URL": url + PATH, "BENCH_SECONDS": str(SECONDS)}
    async with program(api, {}, port, directory / "api.log"):
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **settings}, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await process.communicate()
        if process.returncode:
            raise Failed(" ".join(command))
        said, sent = msgspec.json.decode(printed, type=Said), await served(url)
    if sent < said.operations:
        raise Failed(f"{' '.join(command)}: {said.operations} pages, of which {sent} were sent")
    return Sample(said.operations, said.seconds, said.cpu_seconds)


async def prepare(_: Bench, directory: Path) -> tuple[Mapping[str, Variant], Sequence[Goal]]:
    """Ours to the message, and to the page alone; aiohttp with `json`, and with nothing (the limit)."""
    return {
        "gateway": lambda: measure(directory, "fetch_gateway"),
        "gateway, page alone": lambda: measure(directory, "fetch_gateway", "read"),
        "json": lambda: measure(directory, "fetch_bare", "json"),
        "no decode": lambda: measure(directory, "fetch_bare"),
    }, GOALS
