"""What becomes of a claim that was not answered: every failure is sorted here, once. Pure.

UpstreamFailed     5xx, 429, 408, 425, 407; refused, reset, cut off, too slow, no such name, no good certificate
                   → after RETRY_DELAYS, until RETRY_FOR has passed; 429 and 503 also tell the others to wait
Unavailable        the broker, a valid token or a share of the budget is missing
                   → soon again; it is not the target's fault, and does not count against it
UpstreamRefused    any other status, not JSON, a wrong shape, too large
ForbiddenHost      the token must not go there
                   → never again like this
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from common.broker.retry import RetryPolicy
from common.errors import ForbiddenHost, GatewayError, Unavailable, UpstreamFailed, UpstreamRefused

AWAY_PAUSE = timedelta(seconds=1)
LEAST_PAUSE_AFTER_429 = timedelta(seconds=1)


@dataclass(frozen=True)
class PutOff:
    """Ask again: after about `delay`, and not before `at_least`; nobody calls the host for `block`."""

    delay: timedelta
    at_least: timedelta = timedelta(0)
    block: timedelta = timedelta(0)
    status: int = 0
    counts: bool = True


@dataclass(frozen=True)
class GiveUp:
    """Do not ask again by yourself."""

    reason: str
    status: int = 0


def verdict(error: GatewayError, attempts: int, retry: RetryPolicy) -> PutOff | GiveUp:
    """What becomes of a claim that has failed `attempts` times before."""
    match error:
        case UpstreamFailed():
            return _failed(error, retry.delay(attempts))
        case UpstreamRefused():
            return GiveUp(error.reason, error.status)
        case ForbiddenHost():
            return GiveUp(error.reason)
        case Unavailable():
            return PutOff(AWAY_PAUSE, counts=False)
        case _:
            return _failed(UpstreamFailed(f"bug: {type(error).__name__}"), retry.delay(attempts))


def _failed(error: UpstreamFailed, delay: timedelta | None) -> PutOff | GiveUp:
    if delay is None:
        return GiveUp("retries_exhausted", error.status)
    told = timedelta(seconds=error.retry_after or 0)
    block = {429: max(told, LEAST_PAUSE_AFTER_429), 503: told}.get(error.status, timedelta(0))
    return PutOff(delay, told, block, error.status)
