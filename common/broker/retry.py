"""The one retry policy, as a pure function: which delay comes next, or that it is enough."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class RetryPolicy:
    """`delays` one after another, the last one repeated, until the waits would add up to more than `give_up_after`."""

    delays: Sequence[timedelta]
    give_up_after: timedelta

    def delay(self, attempt: int) -> timedelta | None:
        """The wait before retry number `attempt` (0: the first); None when it is time to park."""
        return None if self._waited(attempt + 1) > self.give_up_after else self.nth(attempt)

    def nth(self, attempt: int) -> timedelta:
        """The wait before retry number `attempt`, for what is retried without end."""
        return self.delays[min(attempt, len(self.delays) - 1)]

    def _waited(self, attempts: int) -> timedelta:
        listed = sum(self.delays[:attempts], timedelta(0))
        return listed + max(0, attempts - len(self.delays)) * self.delays[-1]


def jittered(delay: timedelta) -> timedelta:
    """Anything from half the delay to all of it, so that what failed together does not return together."""
    return delay * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load, guards nothing
