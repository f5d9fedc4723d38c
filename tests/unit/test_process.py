"""Waiting for several things at once."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from common.process import BUGS_A_MINUTE, Bugs, done_before, first_of
from tests.waiting import within


async def _never(cancelled: asyncio.Event) -> str:
    try:
        return await asyncio.Future[str]()
    finally:
        cancelled.set()


async def test_the_first_that_is_done_ends_the_wait_and_coroutines_end_with_it() -> None:
    said, cancelled = asyncio.Event(), asyncio.Event()
    said.set()
    async with within(5):
        await first_of(_never(cancelled), said.wait())
        await cancelled.wait()


def test_bugs_are_survived_unless_they_are_many_within_a_minute() -> None:
    moments, error = iter([*range(BUGS_A_MINUTE), 60.5, 60.6]), ValueError("a bug")
    bugs = Bugs("something.failed", clock=lambda: next(moments))
    for _ in range(BUGS_A_MINUTE + 1):
        bugs.survive(error)
    with pytest.raises(ValueError, match="a bug"):
        bugs.survive(error)


async def test_a_task_that_was_given_goes_on() -> None:
    said, cancelled = asyncio.Event(), asyncio.Event()
    given = asyncio.create_task(_never(cancelled))
    said.set()
    await first_of(given, said.wait())
    assert not given.cancelling()
    given.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await given


async def test_after_so_many_seconds_nothing_needs_to_be_done() -> None:
    cancelled = asyncio.Event()
    async with within(5):
        await first_of(_never(cancelled), seconds=0.01)
        await cancelled.wait()


async def test_whoever_stops_waiting_for_a_task_does_not_cancel_it() -> None:
    """As when a handler's time is over while it waits."""
    cancelled = asyncio.Event()
    given = asyncio.create_task(_never(cancelled))
    waiting = asyncio.create_task(first_of(given, asyncio.sleep(60)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    assert not given.cancelling()
    given.cancel()
    await asyncio.gather(given, return_exceptions=True)


async def test_work_that_is_stopped_has_ended_before_anybody_goes_on() -> None:
    stop, cancelled = asyncio.Event(), asyncio.Event()
    stop.set()
    assert await done_before(stop, _never(cancelled)) is None
    assert cancelled.is_set()


_PROGRAM = """
import asyncio, sys
from common.errors import SettingsError
from common.process import main

async def deaf():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

left = []

async def run(stop):
    left.append(asyncio.create_task(deaf()))
    await asyncio.sleep(0)
    if sys.argv[1] == "wrong":
        raise SettingsError(["NAME: is wrong"])
    if sys.argv[1] == "bug":
        raise ZeroDivisionError

sys.exit(main("test", (), lambda: run))
"""


@pytest.mark.parametrize(("how", "code", "said"), [("well", 0, ""), ("wrong", 78, "NAME: is wrong\n"), ("bug", 70, "")])
def test_what_does_not_hear_that_all_is_over_holds_up_nobody(how: str, code: int, said: str, tmp_path: Path) -> None:
    """T-TERM-BUSY, P12: the exit code is the one that it would have been."""
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, how],
        check=False,
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (code, said)
