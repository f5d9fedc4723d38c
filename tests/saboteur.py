"""`python -m tests.saboteur MODULE ARGUMENT…`: as `ops.prove.ahead`, but the gateway loses some of what it should not.

Of webhooks and events, once so many went well, every fifth and tenth is lost; each refresh token is presented twice.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from common.broker.broadcast import Heard
from common.errors import GatewayError
from schemas.messages import WebhookReceived
from tests.kill.seams import replace

WEBHOOKS, EVENTS = 70, 200
"""The first burst, on which the story waits, comes through."""


def lose_webhooks(mark: Any) -> Any:
    """They are acked and never marked."""
    counted = count()

    async def some(self: Any, webhooks: Sequence[WebhookReceived], *given: Any) -> Any:
        return await mark(self, [one for one in webhooks if (n := next(counted)) < WEBHOOKS or n % 5], *given)

    return some


def lose_events(publish: Any) -> Any:
    """They count as published."""
    counted = count()

    async def some(self: Any, *given: Any) -> Any:
        return await publish(self, *given) if (n := next(counted)) < EVENTS or n % 10 else Heard.BY_ALL

    return some


def present_twice(refresh: Any) -> Any:
    """The second time in vain."""

    async def twice(self: Any, token: str) -> Any:
        pair = await refresh(self, token)
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
