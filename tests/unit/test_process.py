"""Waiting for several things at once."""

from __future__ import annotations

import asyncio
import contextlib

from common.process import done_before, first_of


async def _never(cancelled: asyncio.Event) -> str:
    try:
        return await asyncio.Future[str]()
    finally:
        cancelled.set()


async def test_the_first_that_is_done_ends_the_wait_and_coroutines_end_with_it() -> None:
    said, cancelled = asyncio.Event(), asyncio.Event()
    said.set()
    async with asyncio.timeout(5):
        await first_of(_never(cancelled), said.wait())
        await cancelled.wait()


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
    async with asyncio.timeout(5):
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
