"""workers.fetch.verdicts: what becomes of a claim that was not answered."""

from datetime import timedelta

import pytest

from common.broker.retry import RetryPolicy
from common.errors import (
    BrokerUnavailable,
    CallsUnavailable,
    ForbiddenHost,
    GatewayError,
    GrantUnavailable,
    UpstreamFailed,
    UpstreamRefused,
)
from workers.fetch.verdicts import GiveUp, PutOff, verdict

RETRY = RetryPolicy([timedelta(seconds=2), timedelta(seconds=10)], timedelta(seconds=30))
TWO, TEN = RETRY.delays


@pytest.mark.parametrize(
    ("error", "attempts", "expected"),
    [
        (UpstreamFailed("", status=500), 0, PutOff(TWO, status=500)),
        (UpstreamFailed("", status=500), 3, GiveUp("retries_exhausted", 500)),
        (UpstreamFailed("no answer"), 1, PutOff(TEN)),
        # who says how long is told the others, too
        (UpstreamFailed("", status=429), 0, PutOff(TWO, block=timedelta(seconds=1), status=429)),
        (UpstreamFailed("", status=429, retry_after=0.0), 0, PutOff(TWO, block=timedelta(seconds=1), status=429)),
        (UpstreamFailed("", status=429, retry_after=7.0), 0,
         PutOff(TWO, timedelta(seconds=7), timedelta(seconds=7), 429)),
        (UpstreamFailed("", status=503), 0, PutOff(TWO, status=503)),
        (UpstreamFailed("", status=503, retry_after=9.0), 2,
         PutOff(TEN, timedelta(seconds=9), timedelta(seconds=9), 503)),
        (UpstreamFailed("", status=502, retry_after=9.0), 0, PutOff(TWO, timedelta(seconds=9), status=502)),
        (UpstreamRefused("not_json", status=200), 0, GiveUp("not_json", 200)),
        (UpstreamRefused("refused", status=403), 0, GiveUp("refused", 403)),
        (ForbiddenHost("x"), 0, GiveUp("forbidden_host")),
        # not the target's fault: never parked for it
        (BrokerUnavailable("x"), 99, PutOff(timedelta(seconds=1), counts=False)),
        (GrantUnavailable("x"), 99, PutOff(timedelta(seconds=1), counts=False)),
        (CallsUnavailable("x"), 99, PutOff(timedelta(seconds=1), counts=False)),
        (GatewayError("x"), 0, PutOff(TWO)),
    ],
)  # fmt: skip
def test_failures_are_sorted_once(error: GatewayError, attempts: int, expected: PutOff | GiveUp) -> None:
    """T-API-429, T-API-5XX, T-API-BODY: passing or final, and whose fault."""
    assert verdict(error, attempts, RETRY) == expected
