"""How fast Syncaroo is asked, and for whom: the budgets of hosts, the room of a connection, the pause. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import TypeVar

T = TypeVar("T")

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


class Purse:
    """The budgets of all hosts during one claim."""

    def __init__(self, buckets: Mapping[str, Bucket], rate: float, now: datetime) -> None:
        self.buckets = dict(buckets)
        self._rate = rate
        self._now = now

    def take(self, host: str, *, resync: bool) -> bool:
        """Pay for one call, if there is a budget for it."""
        bucket = self.buckets.get(host) or full_bucket(self._rate, self._now)
        self.buckets[host], granted = debit(bucket, self._now, self._rate, 1, resync=resync)
        return granted == 1

    def spent(self, *, resync: bool) -> list[str]:
        """The hosts that cannot be called now."""
        after = {host: debit(one, self._now, self._rate, 1, resync=resync) for host, one in self.buckets.items()}
        return sorted(host for host, (_, granted) in after.items() if granted == 0)

    def empty(self, *, resync: bool = False) -> bool:
        """Whether no host that is known can be called now."""
        return bool(self.buckets) and len(self.spent(resync=resync)) == len(self.buckets)


class Room:
    """How many more calls may begin here, and how many of them for one connection."""

    def __init__(self, free: int, cap: int | None = None, running: Mapping[int, int] | None = None) -> None:
        self.free = free
        self._cap = cap
        self._running = Counter(running or {})

    def has(self, connection_id: int) -> bool:
        """Whether one more call for the connection may begin."""
        return self.free > 0 and (self._cap is None or self._running[connection_id] < self._cap)

    def take(self, connection_id: int) -> None:
        """One more call for the connection begins."""
        self.free -= 1
        self._running[connection_id] += 1

    def full(self) -> list[int]:
        """The connections that have as many calls as one may have."""
        return [] if self._cap is None else sorted(one for one, calls in self._running.items() if calls >= self._cap)


def cap_of(concurrency: int) -> int:
    """How many calls of one connection may run at once: a quarter is always left to the others."""
    return max(1, concurrency - max(1, concurrency // 4))


def pauses(paused: bool, depth: int | None, limit: int) -> bool:
    """Whether to claim nothing while reconcile has so many pages before it, from over the limit to half of it, or while
    nobody knows how many."""
    return depth is None or depth > (limit // 2 if paused else limit)


def interleaved(first: Sequence[T], second: Iterable[T]) -> list[T]:
    """One of the first, one of the second, and so on, each once."""
    nothing = object()
    pairs = zip_longest(first, (one for one in second if one not in first), fillvalue=nothing)
    return [one for pair in pairs for one in pair if one is not nothing]  # type: ignore[misc]  # `nothing` is of another type
