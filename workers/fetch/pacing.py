"""How fast Syncaroo is asked: the budget of a host, and the part of it that resyncs may use. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

RESYNC_SHARE = 0.3


@dataclass(frozen=True)
class Bucket:
    """The budget of one host: a token bucket that holds at most one second's worth, and a smaller one for resyncs."""

    tokens: float
    resync_tokens: float
    refilled_at: datetime
    blocked_until: datetime | None = None


def full_bucket(rate: float, now: datetime) -> Bucket:
    """The budget of a host that was never called."""
    return Bucket(max(1.0, rate), max(1.0, rate * RESYNC_SHARE), now)


def debit(bucket: Bucket, now: datetime, rate: float, wish: int, *, resync: bool = False) -> tuple[Bucket, int]:
    """The bucket after taking up to `wish` calls, and how many were had. A resync's call is taken from both parts."""
    elapsed = max(0.0, (now - bucket.refilled_at).total_seconds())
    full = full_bucket(rate, now)
    tokens = min(full.tokens, bucket.tokens + elapsed * rate)
    resync_tokens = min(full.resync_tokens, bucket.resync_tokens + elapsed * rate * RESYNC_SHARE)
    blocked = bucket.blocked_until is not None and bucket.blocked_until > now
    left = min(tokens, resync_tokens) if resync else tokens
    granted = 0 if blocked else min(wish, int(left))
    taken = granted if resync else 0
    return Bucket(tokens - granted, resync_tokens - taken, now, bucket.blocked_until), granted
