"""`python -m workers token|fetch|reconcile|relay|all`: one stage, or all of them in one process.

Each stage is a module `workers.<role>.worker` with `SECTIONS`, the settings that it reads, and `build(*sections)`, its
composition root.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from common.process import Run, main, until_stopped
from common.settings import WorkerSettings
from workers.monitor import Monitor, watched

ROLES = ("token", "fetch", "reconcile", "relay")
EX_USAGE = 64
USAGE = f"usage: python -m workers {'|'.join(ROLES)}|all"


def start(arguments: Sequence[str]) -> int:
    """Run what the command line names; the result is the exit code (64: it names nothing that there is)."""
    if len(arguments) != 1 or arguments[0] not in (*ROLES, "all"):
        print(USAGE, file=sys.stderr)  # noqa: T201  # logs are for running processes
        return EX_USAGE
    role = arguments[0]
    modules = [import_module(f"workers.{one}.worker") for one in (ROLES if role == "all" else (role,))]
    sections = tuple(dict.fromkeys(section for module in modules for section in module.SECTIONS))

    def build(worker: WorkerSettings, *values: Any) -> Run:
        by_section = dict(zip(sections, values, strict=True))
        monitor = Monitor()
        run = _together(
            [module.build(*(by_section[section] for section in module.SECTIONS), monitor=monitor) for module in modules]
        )
        return run if worker.worker_port is None else watched(run, monitor, worker.http_host, worker.worker_port)

    return main(f"workers {role}", (WorkerSettings, *sections), build)


def _together(runs: Sequence[Run]) -> Run:
    async def run(stop: asyncio.Event) -> None:
        await until_stopped(stop, *(_service(one, stop) for one in runs))

    return run


async def _service(run: Run, stop: asyncio.Event) -> None:
    await run(stop)


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
