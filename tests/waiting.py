"""Waiting by deadline, the only way tests wait."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

PATIENCE = 4.0
"""Time-outs are written for an idle machine; one that does much else gets so many times as long. They end a hang and
promise nothing: who asks for a bound says `patience=1`."""


@overload
async def until(
    check: Callable[[], Awaitable[T | None]],
    timeout: float = 10.0,
    what: str = "",
    *,
    pace: float = 0.1,
    patience: float = PATIENCE,
) -> T: ...
@overload
async def until(
    check: Callable[[], T | None],
    timeout: float = 10.0,
    what: str = "",
    *,
    pace: float = 0.1,
    patience: float = PATIENCE,
) -> T: ...
async def until(
    check: Callable[[], Any],
    timeout: float = 10.0,
    what: str = "",
    *,
    pace: float = 0.1,
    patience: float = PATIENCE,
) -> Any:
    """Asks `check` (plain or async) again and again → its first answer that is true.

    An AssertionError counts as "not yet", so that `check` may assert. The pauses grow up to `pace` seconds. After
    `timeout` seconds times `patience` it fails with `what`, the last answer and the last assertion.
    """
    timeout *= patience
    deadline = time.monotonic() + timeout
    pause = 0.005
    while True:
        said: object
        try:
            answer = check()
            value = await answer if inspect.isawaitable(answer) else answer
        except AssertionError as error:
            said = error
        else:
            if value:
                return value
            said = repr(value)
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or getattr(check, '__name__', 'check')}: {said}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, pace)


def within(seconds: float) -> asyncio.Timeout:
    """`async with within(5):` ends a hang of what is awaited there, with the patience of `until`.

    TimeoutError: it has not ended after `seconds` times PATIENCE.
    """
    return asyncio.timeout(seconds * PATIENCE)
