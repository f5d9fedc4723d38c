"""Wrapping a seam of the product in this very process, so that reaching it is noticed: before, after, at commit."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from common.store.engine import Store, Transaction

Reach = Callable[[], None]
"""Says that the point was reached; it may not return."""

Method = Callable[..., Awaitable[Any]]

_watched: ContextVar[bool] = ContextVar("watched", default=False)


def before(owner: type, name: str, reach: Reach, when: Callable[..., bool] = lambda *_: True) -> None:
    """Reached when `owner.name` is called with arguments (without self) that `when` accepts."""

    def wrap(original: Method) -> Method:
        async def wrapped(self: Any, *given: Any, **named: Any) -> Any:
            if when(*given):
                reach()
            return await original(self, *given, **named)

        return wrapped

    _replace(owner, name, wrap)


def after(owner: type, name: str, reach: Reach, when: Callable[..., bool] = lambda *_: True) -> None:
    """Reached when `owner.name` has returned; `when` gets the arguments and, last, what it returned."""

    def wrap(original: Method) -> Method:
        async def wrapped(self: Any, *given: Any, **named: Any) -> Any:
            result = await original(self, *given, **named)
            if when(*given, result):
                reach()
            return result

        return wrapped

    _replace(owner, name, wrap)


def before_commit(owner: type, name: str, reach: Reach) -> None:
    """Reached when all statements of a transaction begun inside `owner.name` have run and its commit is next."""

    def wrap(original: Method) -> Method:
        async def wrapped(self: Any, *given: Any, **named: Any) -> Any:
            token = _watched.set(True)
            try:
                return await original(self, *given, **named)
            finally:
                _watched.reset(token)

        return wrapped

    _replace(owner, name, wrap)
    begun = Store.transaction

    @asynccontextmanager
    async def transaction(self: Store) -> AsyncIterator[Transaction]:
        async with begun(self) as inner:
            yield inner
            if _watched.get():
                reach()

    Store.transaction = transaction  # type: ignore[method-assign]


def instead(owner: type, name: str, method: Callable[[Method], Method]) -> None:
    """Puts `method(original)` in the place of `owner.name`."""
    _replace(owner, name, method)


def _replace(owner: type, name: str, wrap: Callable[[Method], Method]) -> None:
    original: Method = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(wrap(original)))
