"""A store and a broker for those who read the flow: what they say, and what it is like when they do not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from common.errors import BrokerUnavailable, StoreUnavailable
from ingress.flow.flow import (
    ApiBudget,
    Attempts,
    Events,
    Flow,
    GrantFlow,
    Held,
    ParkedGroup,
    Silence,
    Targets,
    Waiting,
)

FLOW = Flow(
    at=datetime(2026, 1, 2, tzinfo=UTC),
    targets=Targets(webhook=Waiting(count=3, oldest_seconds=12.5), resync=Waiting(count=1)),
    attempts=Attempts(),
    listings=7,
    events=Events(unpublished=Waiting(count=2, oldest_seconds=4.0)),
    parked=[ParkedGroup(queue="syncaroo.fetch", reason="refused", count=2, oldest_seconds=60.0)],
    held=Held(count=4),
    grant=GrantFlow(state="active", expires_in_seconds=300.0, refresh_in_seconds=-5.0),
    connections={"confirmed": 2},
    silence=Silence(longest_seconds=9.0, by_connection={"99": 9.0}, unusual=1),
    budgets={"api.syncaroo.com": ApiBudget(tokens=3.0, blocked_seconds=30.0)},
)


class Sources:
    """Store and broker in one, with a clock; `away` refuses, `open` is cleared while nobody answers."""

    def __init__(self, flow: Flow = FLOW) -> None:
        self.flow = flow
        self.now = 1000.0
        self.away: set[str] = set()
        self.bug = False
        self.open = asyncio.Event()
        self.open.set()
        self.reads = 0

    def clock(self) -> float:
        return self.now

    async def read(self) -> Flow:
        self.reads += 1
        await self.open.wait()
        if self.bug:
            raise ValueError("another schema")
        if "store" in self.away:
            raise StoreUnavailable("store: away")
        return self.flow

    async def depths(self, queues: Sequence[str], *, seconds: float = 2.0) -> dict[str, int]:
        if "broker" in self.away:
            raise BrokerUnavailable("broker: away")
        return dict.fromkeys(queues, 5)
