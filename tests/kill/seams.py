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
_writing: list[object] = []
"""The stores in which transactions are open, or wait to be; empty where nobody watches."""


def always(*_: Any) -> bool:
    """Every call counts."""
    return True


def before(seam: str, when: Callable[..., bool] = always, *, at_rest: bool = False) -> Install:
    """Reached when it is called with arguments (without self) that `when` accepts.

    `at_rest`: not before `rest` has come, so that others can write while it stands still.
    """

    def install(reach: Reach) -> None:
        def wrap(original: Method) -> Method:
            async def wrapped(self: Any, *given: Any, **named: Any) -> Any:
                if when(*given):
                    await rest(at_rest)
                    reach()
                return await original(self, *given, **named)

            return wrapped

        replace(seam, wrap)

    return install


def after(seam: str, when: Callable[..., bool] = always, *, at_rest: bool = False) -> Install:
    """Reached when it has returned; `when` gets the arguments and, last, what it returned.

    `at_rest`: not before `rest` has come, so that others can write while it stands still.
    """

    def install(reach: Reach) -> None:
        def wrap(original: Method) -> Method:
            async def wrapped(self: Any, *given: Any, **named: Any) -> Any:
                result = await original(self, *given, **named)
                if when(*given, result):
                    await rest(at_rest)
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


def watch_writes() -> None:
    """Of this process, as it is to stand still: who does so while it writes holds up others, and none can be told to
    go on without it."""

    def wrap(begun: Any) -> Any:
        @asynccontextmanager
        async def transaction(self: Any) -> AsyncIterator[Any]:
            _writing.append(self)
            try:
                async with begun(self) as inner:
                    yield inner
            finally:
                _writing.remove(self)

        return transaction

    replace("common.store.engine:Store.transaction", wrap)


async def rest(is_wanted: bool) -> None:
    """If it is wanted and writes are watched, until no task of this process writes, or is about to."""
    while is_wanted and _writing:  # noqa: ASYNC110  # nobody tells when there is none
        await asyncio.sleep(0.001)


def replace(seam: str, wrap: Callable[[Any], Any]) -> None:
    """Puts `wrap(method)` in the method's place."""
    module, _, path = seam.partition(":")
    owner_name, _, name = path.partition(".")
    owner = getattr(import_module(module), owner_name)
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(wrap(original)))
