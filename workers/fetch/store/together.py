"""Group commit: what several ask for while one call is under way, the next call does for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from common.errors import StoreUnavailable

In = TypeVar("In")
Out = TypeVar("Out")


class Together(Generic[In, Out]):
    """Asks `work` for what was asked of it meanwhile, in that order; one call at a time.

    When a call fails, and not because the store is away, each is asked alone: nobody fails for another's sake.
    """

    def __init__(self, work: Callable[[Sequence[In]], Awaitable[Sequence[Out]]]) -> None:
        self._work = work
        self._waiting: list[tuple[In, asyncio.Future[Out]]] = []
        self._working: asyncio.Task[None] | None = None

    async def ask(self, one: In) -> Out:
        """What `work` gives for it, or raises. Whoever is cancelled meanwhile may have been answered."""
        answer: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        self._waiting.append((one, answer))
        if self._working is None:
            self._working = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                await self._answer([(one, answer) for one, answer in waiting if not answer.done()])
        finally:
            self._working = None

    async def _answer(self, waiting: Sequence[tuple[In, asyncio.Future[Out]]]) -> None:
        try:
            given = await self._work([one for one, _ in waiting]) if waiting else []
        except Exception as error:  # noqa: BLE001  # it is raised where it was asked
            if len(waiting) > 1 and not isinstance(error, StoreUnavailable):
                for one in waiting:
                    await self._answer([one])
                return
            for _, answer in waiting:
                if not answer.done():
                    answer.set_exception(error)
        else:
            for (_, answer), out in zip(waiting, given, strict=True):
                if not answer.done():
                    answer.set_result(out)
