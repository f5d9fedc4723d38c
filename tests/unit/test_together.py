"""workers.fetch.store.together: one call for what several ask for."""

import asyncio
from collections.abc import Sequence

import pytest

from common.errors import Permanent, StoreUnavailable
from workers.fetch.store.together import Together


class Work:
    """Doubles numbers, and keeps what it was called with; waits while it is held."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.called = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()
        self.error: Exception | None = None

    async def __call__(self, asked: Sequence[int]) -> list[int]:
        self.calls.append(list(asked))
        self.called.set()
        await self.free.wait()
        if self.error and 3 in asked:
            raise self.error
        return [2 * one for one in asked]


async def test_what_is_asked_at_once_is_one_call_and_each_gets_its_own() -> None:
    work = Work()
    together = Together(work)
    assert await asyncio.gather(*map(together.ask, range(5))) == [0, 2, 4, 6, 8]
    assert work.calls == [[0, 1, 2, 3, 4]]


async def test_what_is_asked_meanwhile_is_the_next_call() -> None:
    work = Work()
    together = Together(work)
    work.free.clear()
    first = asyncio.create_task(together.ask(1))
    await work.called.wait()
    asyncio.get_running_loop().call_soon(work.free.set)
    assert await asyncio.gather(*map(together.ask, (2, 3, 4))) == [4, 6, 8]
    assert await first == 2
    assert work.calls == [[1], [2, 3, 4]]
    assert await together.ask(5) == 10


async def test_nobody_fails_for_another_s_sake() -> None:
    work = Work()
    work.error = Permanent("unstorable", "3")
    together = Together(work)
    answers = await asyncio.gather(*map(together.ask, (2, 3, 4)), return_exceptions=True)
    assert answers == [4, work.error, 8]


async def test_when_the_store_is_away_nobody_asks_again() -> None:
    work = Work()
    work.error = StoreUnavailable("away")
    together = Together(work)
    answers = await asyncio.gather(*map(together.ask, (2, 3, 4)), return_exceptions=True)
    assert answers == [work.error] * 3
    assert work.calls == [[2, 3, 4]]
    assert await together.ask(5) == 10


async def test_who_is_cancelled_takes_nobody_along() -> None:
    work = Work()
    together = Together(work)
    work.free.clear()
    first, second, third = (asyncio.create_task(together.ask(one)) for one in (1, 2, 4))
    await work.called.wait()
    first.cancel()
    asyncio.get_running_loop().call_soon(work.free.set)
    assert [*await asyncio.gather(together.ask(5), second, third)] == [10, 4, 8]
    assert work.calls == [[1, 2, 4], [5]]
    with pytest.raises(asyncio.CancelledError):
        await first
