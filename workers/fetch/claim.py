"""What a claim is: a target that this process may ask for, and the token to ask with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schemas.messages import PlatformIds, Reason, Source
from workers.fetch.walk import Walk


@dataclass(frozen=True)
class Grant:
    """A token pair that is valid now, encrypted."""

    rt_version: int
    sealed_pair: str


@dataclass(frozen=True)
class Claim:
    """A target that this process may ask for; `started` is the number taken right before the first GET."""

    connection_id: int
    url: str
    host: str
    mapping: PlatformIds
    reason: Reason
    delivery_id: str | None
    started: int
    asked: int
    attempts: int
    second_look: bool
    last_status: int | None
    walk: Walk | None = None
    """Where an earlier attempt's walk over the pages goes on."""
    traces: tuple[str, ...] = ()
    """Of the webhooks that it answers, the latest first."""

    @property
    def first(self) -> int:
        """The number of the first GET of all that leads to the answer: it answers whatever was wanted by then."""
        return self.walk.first if self.walk else self.started

    @property
    def is_resync(self) -> bool:
        """Whether its calls come from the part of the budget that resyncs may use."""
        return self.reason != "webhook"

    @property
    def answers_webhook(self) -> bool:
        """Whether a webhook waits for it that nothing has answered yet."""
        return self.reason == "webhook" and not self.second_look

    def source(self, began: int, ended: int, at: datetime, status: int = 200, reason: Reason | None = None) -> Source:
        """An attempt between these numbers, as reconcile and the event's cause see it; `reason` when it is another."""
        return Source(
            url=self.url,
            began=began,
            ended=ended,
            asked=self.asked,
            attempt=self.attempts,
            reason=reason or self.reason,
            delivery_id=self.delivery_id,
            fetched_at=at,
            status=status,
        )
