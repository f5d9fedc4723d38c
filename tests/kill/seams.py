"""Wrapping a seam of the product in this very process, so that reaching it is noticed: before, after, at commit.

A seam is named `package.module:Class.method`; nothing is imported before it is wrapped.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any

Reach = Callable[[], None]
"""Says that the point was reached; it may not return."""
Install = Callable[[Reach], None]
"""Wraps a seam so that reaching the point calls it."""
Method = Callable[..., Awaitable[Any]]


def always(*_: Any) -> bool:
    """Every call counts."""
    return True


def before(seam: str, when: Callable[..., bool] = always) -> Install:
    """Reached when it is called with arguments (without self) that `when` accepts."""

    def install(reach: Reach) -> None:
        def wrap(original: Method) -> Method:
            async def wrapped(self: Any, *given: Any, **named: Any) -> Any:
                if when(*given):
                    reach()
                return await original(self, *given, **named)

            return wrapped

        replace(seam, wrap)

    return install


def after(seam: str, when: Callable[..., bool] = always) -> Install:
    """Reached when it has returned; `when` gets the arguments and, last, what it returned."""

    def install(reach: Reach) -> None:
        def wrap(original: Method) -> Method:
            async def wrapped(self: Any, *given: Any, **named: Any) -> Any:
                result = await original(self, *given, **named)
                if when(*given, result):
                    reach()
                return result

            return wrapped

        replace(seam, wrap)

    return install


def before_commit(seam: str, when: Callable[..., bool] = always) -> Install:
    """Reached when all statements of a transaction that it began have run, and the commit is next; `when` gets its
    arguments (without self)."""

    def install(reach: Reach) -> None:
        watched: ContextVar[bool] = ContextVar(seam, default=False)  # its own: a process may have several such points

        def wrap(original: Method) -> Method:
            async def wrapped(self: Any, *given: Any, **named: Any) -> Any:
                token = watched.set(when(*given))
                try:
                    return await original(self, *given, **named)
                finally:
                    watched.reset(token)

            return wrapped

        def wrap_transaction(begun: Any) -> Any:
            @asynccontextmanager
            async def transaction(self: Any) -> AsyncIterator[Any]:
                async with begun(self) as inner:
                    yield inner
                    if watched.get():
                        reach()

            return transaction

        replace(seam, wrap)
        replace("common.store.engine:Store.transaction", wrap_transaction)

    return install


def between_writes(seam: str, when: Callable[..., bool] = always) -> Install:
    """As `before`, once nothing of this process holds a lock in the store: a process that stands still while it does
    holds up others, and none can be told to go on without it."""

    def install(reach: Reach) -> None:
        locks, is_reached = 0, False

        def wrap(original: Method) -> Method:
            async def wrapped(self: Any, *given: Any, **named: Any) -> Any:
                nonlocal is_reached
                if when(*given):
                    while locks and not is_reached:  # noqa: ASYNC110  # nobody tells when they are free
                        await asyncio.sleep(0.001)
                    is_reached = True
                    reach()
                return await original(self, *given, **named)

            return wrapped

        def counted(begun: Any) -> Any:
            @asynccontextmanager
            async def held(self: Any, *given: Any) -> AsyncIterator[Any]:
                nonlocal locks
                has_begun = 0
                try:
                    async with begun(self, *given) as inner:
                        has_begun = 1
                        locks += 1
                        yield inner
                finally:
                    locks -= has_begun

            return held

        replace(seam, wrap)
        replace("common.store.engine:Store.transaction", counted)
        replace("common.store.engine:FileLock.held", counted)

    return install


def replace(seam: str, wrap: Callable[[Any], Any]) -> None:
    """Puts `wrap(method)` in the method's place."""
    module, _, path = seam.partition(":")
    owner_name, _, name = path.partition(".")
    owner = getattr(import_module(module), owner_name)
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(wrap(original)))
