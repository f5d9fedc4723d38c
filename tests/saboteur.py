"""`python -m tests.saboteur MODULE ARGUMENT…`: as `ops.prove.ahead`, but the gateway loses some of what it should not.

Once the file MARK lies beside AHEAD_FILE, every third webhook and every third event that a process handles is lost, and
each refresh token is presented twice. MARK tells the deliveries of the webhooks.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import Any

from common.broker.broadcast import Heard
from common.errors import GatewayError
from ops.prove.clock import AHEAD_FILE
from schemas.messages import WebhookReceived
from tests.kill.seams import replace

MARK = "sabotage"
EVERY = 3


def mark() -> Path:
    """What comes before it is there goes well: the story waits for it."""
    return Path(os.environ[AHEAD_FILE]).with_name(MARK)


def one_in_three() -> Callable[[], bool]:
    """Whether this one is to be lost."""
    counted = count()
    return lambda: mark().exists() and next(counted) % EVERY == 0


def lose_webhooks(take_up: Any) -> Any:
    """They are acked and never marked."""
    is_lost = one_in_three()

    async def some(self: Any, webhooks: Sequence[WebhookReceived], *given: Any) -> Any:
        lost = [one for one in webhooks if is_lost()]
        with mark().open("a") if lost else nullcontext() as told:
            for one in lost:
                print(one.delivery_id, file=told)
        return await take_up(self, [one for one in webhooks if one not in lost], *given)

    return some


def lose_events(publish: Any) -> Any:
    """They count as published."""
    is_lost = one_in_three()

    async def some(self: Any, *given: Any) -> Any:
        return Heard.BY_ALL if is_lost() else await publish(self, *given)

    return some


def present_twice(refresh: Any) -> Any:
    """The second time in vain."""

    async def twice(self: Any, token: str) -> Any:
        pair = await refresh(self, token)
        if mark().exists():
            with suppress(GatewayError):
                await refresh(self, token)
        return pair

    return twice


if __name__ == "__main__":
    replace("workers.fetch.store.marks:MarkStore.mark", lose_webhooks)
    replace("common.broker.broadcast:Broadcast.publish", lose_events)
    replace("workers.token.client:TokenClient.refresh", present_twice)
    sys.argv[0] = "ops.prove.ahead"
    runpy.run_module("ops.prove.ahead", run_name="__main__", alter_sys=True)
