"""The pause while reconcile is deep: looked at once a second, told once when it begins and when it ends."""

from __future__ import annotations

from structlog.testing import capture_logs

from common.errors import BrokerUnavailable
from workers.fetch.backlog import Backlog


class Queue:
    """A queue of this depth; None: the broker is away."""

    def __init__(self) -> None:
        self.depth: int | None = 0
        self.looks = 0
        self.seconds = 0.0

    async def ask(self) -> int:
        self.looks += 1
        if self.depth is None:
            raise BrokerUnavailable("broker: not connected")
        return self.depth

    def clock(self) -> float:
        return self.seconds


async def test_claims_pause_and_go_on_and_say_so_once() -> None:
    queue = Queue()
    backlog = Backlog(queue.ask, 10, queue.clock)
    with capture_logs() as logs:
        for depth, paused in ((10, False), (11, True), (6, True), (5, False), (None, True), (6, True), (3, False)):
            queue.depth = depth
            queue.seconds += 1
            assert await backlog.pausing() is paused
    told = [log["event"] for log in logs if log["log_level"] == "warning"]
    assert told == ["fetch.paused", "fetch.resumed", "fetch.paused", "fetch.resumed"]


async def test_the_depth_is_asked_once_a_second() -> None:
    queue = Queue()
    backlog = Backlog(queue.ask, 10, queue.clock)
    for _ in range(20):
        queue.seconds += 0.25
        await backlog.pausing()
    assert queue.looks == 5
