"""How every process runs: settings → logs → work until SIGTERM → a bounded end.

Exit codes: 0 after SIGTERM or SIGINT, 78 (EX_CONFIG) for wrong settings, 70 (EX_SOFTWARE) for a bug. At SIGUSR2 it
writes to stderr where each of its threads is, and goes on; also while its event loop hangs.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import uvloop

from common import tracing
from common.clock import Monotonic, monotonic_seconds
from common.errors import SettingsError
from common.logs import configure, get_logger
from common.settings import LogSettings, ProcessSettings, TraceSettings, load, secret_values

STDERR = 2
EX_SOFTWARE = 70
EX_CONFIG = 78
GARBAGE = (20_000, 10, 20)
"""How many objects more there are before the collector looks, at the youngest, the middle, all (`gc.set_threshold`)."""
CLOSING_SECONDS = 5.0
"""How long what is left over may take to hear that all is over: reconnecting libraries swallow a cancellation."""

BUGS_A_MINUTE = 10
"""So many a loop survives."""

log = get_logger(__name__)
T = TypeVar("T")

Run = Callable[[asyncio.Event], Awaitable[None]]


def main(name: str, sections: Sequence[type[Any]], build: Callable[..., Run]) -> int:
    """Read the sections, build the process from them, and run it until it is told to stop.

    `build` gets the sections in order and gives the coroutine function that runs until the event is set. The result is
    the exit code. A process that does not end within `SHUTDOWN_GRACE_SECONDS` is ended hard: what it held goes back to
    the broker and its leases run out.
    """

    def work(runner: asyncio.Runner) -> None:
        logs, process, traces, *values = load(LogSettings, ProcessSettings, TraceSettings, *sections)
        configure(logs, [*secret_values(values), *traces.secrets()])
        tracing.start(traces, name.rpartition(" ")[2])
        try:
            run = build(*values)
            _leave_alone_what_stays()
            runner.run(_until_signalled(name, run, process.shutdown_grace_seconds))
        finally:
            tracing.stop()

    faulthandler.register(signal.SIGUSR2, file=STDERR)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = _outcome(name, work, runner)
        hard_end = _end_hard_after(CLOSING_SECONDS, code)
    hard_end.cancel()
    return code


def _outcome(name: str, work: Callable[[asyncio.Runner], None], runner: asyncio.Runner) -> int:
    """The exit code; says why when it is not 0."""
    try:
        work(runner)
    except SettingsError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr, flush=True)  # noqa: T201  # logs are for running processes
        return EX_CONFIG
    except KeyboardInterrupt:
        return 0
    except Exception:
        log.exception("process.failed", process=name)
        return EX_SOFTWARE
    return 0


def _leave_alone_what_stays() -> None:
    """What was loaded stays: to look through it for garbage again and again was a sixth of what a webhook costs."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE)


async def _until_signalled(name: str, run: Run, grace: float) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, name, stop, grace)
    log.info("process.started", process=name)
    await run(stop)
    log.info("process.stopped", process=name)


def _on_signal(name: str, stop: asyncio.Event, grace: float) -> None:
    if stop.is_set():
        return
    log.info("process.stopping", process=name)
    stop.set()
    _end_hard_after(grace, 0)


def _end_hard_after(seconds: float, code: int) -> threading.Timer:
    # A thread, not a task: it must work also when the loop does not.
    hard_end = threading.Timer(seconds, os._exit, args=(code,))
    hard_end.daemon = True
    hard_end.start()
    return hard_end


async def until_stopped(stop: asyncio.Event, *services: Coroutine[Any, Any, None]) -> None:
    """Run services together until `stop`; the first that fails stops the others and is raised, as it was."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(service) for service in services]
            await first_of(stop.wait(), *tasks)
    except BaseExceptionGroup as group_error:
        # Bare, so that wrong settings found on the way still end the process as wrong settings.
        raise group_error.exceptions[0] from None


class Bugs:
    """What nobody expected in a loop. One that passes is logged, and survived. One that is only repeated ends the
    process in the end: who watches over it starts it again, and knows."""

    def __init__(self, event: str, clock: Monotonic = monotonic_seconds) -> None:
        """`event` is what log lines about them are called."""
        self._event = event
        self._clock = clock
        self._moments: list[float] = []

    def survive(self, error: Exception) -> None:
        """Log it; raise it when it is the eleventh within a minute."""
        now = self._clock()
        self._moments = [moment for moment in self._moments if moment > now - 60.0] + [now]
        if len(self._moments) > BUGS_A_MINUTE:
            raise error
        log.error(self._event, exc_info=error)


async def done_before(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of the work, or None when `stop` came first: then the work is cancelled."""
    working = asyncio.create_task(work)
    try:
        await first_of(working, stop.wait())
        return working.result() if working.done() else None
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def first_of(*waits: Coroutine[Any, Any, object] | asyncio.Future[Any], seconds: float | None = None) -> None:
    """Wait until one of them is done, or for so long; coroutines are cancelled then, tasks are left alone.

    What one of them raises is not raised here: ask the task.
    """
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task, wait in zip(tasks, waits, strict=True):
            if task is not wait:
                task.cancel()


async def pause(stop: asyncio.Event, seconds: float) -> bool:
    """Wait for that long, or until `stop`; True when it is time to stop."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True
