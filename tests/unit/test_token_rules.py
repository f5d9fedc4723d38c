"""What Syncaroo's token endpoint may answer, as tables."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from common.codec import dumps
from common.errors import Permanent
from common.token_pair import Pair, pack, unpack
from workers.token.rules import (
    LEASE,
    Look,
    NoReply,
    Obtained,
    Refused,
    Reply,
    Unknown,
    Watch,
    classify,
    is_code_spent,
    lifetime_of,
    refresh_after,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
GOOD = {"tokenType": "Bearer", "expiresIn": 600, "accessToken": "a-1", "refreshToken": "r-1"}


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


@pytest.mark.parametrize(
    ("changed", "lifetime"),
    [
        ({}, 600),
        ({"tokenType": "mac"}, 600),
        ({"tokenType": None}, 600),
        ({"more": [1, 2]}, 600),
        ({"expiresIn": "1200"}, 1200),
        ({"expiresIn": 30.5}, 30.5),
        ({"expiresIn": 86400 * 30}, 86400 * 30),
    ],
)
def test_a_pair_is_a_pair(changed: dict[str, Any], lifetime: float) -> None:
    """T-RT-BADRESP: what is odd but harmless."""
    outcome = classify(Reply(200, dumps(GOOD | changed)))
    assert outcome == Obtained(Pair(access_token="a-1", refresh_token="r-1"), seconds(lifetime))


@pytest.mark.parametrize("odd", [None, 0, -1, True, "soon", "-5", "1e9", [], {}, 86400 * 30 + 1, 10**18, "0", ""])
def test_a_pair_without_a_sensible_lifetime_is_kept_for_ten_minutes(odd: Any) -> None:
    """T-RT-BADRESP: its predecessor is used up, so dropping it would end our access."""
    assert lifetime_of(odd) == seconds(600)
    outcome = classify(Reply(200, dumps(GOOD | {"expiresIn": odd})))
    assert isinstance(outcome, Obtained)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>oops</html>",
        b"[]",
        b"null",
        b'"text"',
        b'{"accessToken": "a", "accessToken": "b", "refreshToken": "r"}',
        dumps(GOOD)[:-1],
        dumps(GOOD | {"accessToken": ""}),
        dumps(GOOD | {"accessToken": None}),
        dumps(GOOD | {"accessToken": 7}),
        dumps(GOOD | {"accessToken": "a\r\nX-Evil: 1"}),
        dumps(GOOD | {"accessToken": "ä"}),
        dumps(GOOD | {"refreshToken": ""}),
        dumps(GOOD | {"refreshToken": ["r"]}),
        dumps({"accessToken": "a", "expiresIn": 600}),
        dumps({"refreshToken": "r", "expiresIn": 600}),
        dumps({"error": "invalid_grant"}),
    ],
)
def test_half_a_pair_is_none(body: bytes) -> None:
    """T-RT-BADRESP: never stores an incomplete pair."""
    outcome = classify(Reply(200, body))
    assert isinstance(outcome, Unknown)
    assert outcome.sent
    assert not outcome.our_fault


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"error": "invalid_grant"}, Refused("HTTP 400 invalid_grant")),
        (401, {"error": "invalid_grant", "x": 1}, Refused("HTTP 401 invalid_grant")),
        (500, {"error": "invalid_grant"}, Unknown("HTTP 500 invalid_grant")),
        (403, {"error": "invalid_grant"}, Unknown("HTTP 403 invalid_grant", our_fault=True)),
        (401, {"error": "invalid_client"}, Unknown("HTTP 401 invalid_client", our_fault=True)),
        (400, {"error": "invalid_request"}, Unknown("HTTP 400 invalid_request", our_fault=True)),
        (400, {"error": "your token is r-1"}, Unknown("HTTP 400", our_fault=True)),
        (400, {"error": {"code": "invalid_grant"}}, Unknown("HTTP 400", our_fault=True)),
        (400, "invalid_grant", Unknown("HTTP 400", our_fault=True)),
        (404, None, Unknown("HTTP 404", our_fault=True)),
        (429, {"error": "slow_down"}, Unknown("HTTP 429")),
        (408, None, Unknown("HTTP 408")),
        (302, None, Unknown("HTTP 302")),
        (500, None, Unknown("HTTP 500")),
        (503, GOOD, Unknown("HTTP 503")),
    ],
)
def test_a_refusal_is_definite_only_as_invalid_grant(status: int, body: Any, expected: object) -> None:
    assert classify(Reply(status, dumps(body))) == expected


def test_no_answer_is_no_verdict() -> None:
    assert classify(NoReply("TimeoutError", sent=True)) == Unknown("TimeoutError", sent=True)
    assert classify(NoReply("ClientConnectorError", sent=False)) == Unknown("ClientConnectorError", sent=False)


def test_nothing_shows_tokens() -> None:
    reply = Reply(200, dumps(GOOD))
    assert "a-1" not in repr(reply) + repr(classify(reply))


@pytest.mark.parametrize(
    ("lifetime", "spread", "expected"),
    [(600, 0, 360), (600, 1, 420), (10, 0.5, 6.5), (0.1, 0, 1), (-50, 1, 1), (86400 * 30, 0, 86400)],
)
def test_renewal_comes_early_and_daily(lifetime: float, spread: float, expected: float) -> None:
    assert refresh_after(seconds(lifetime), spread) == seconds(expected)


@pytest.mark.parametrize(
    ("age", "delay", "spent"), [(0, 2, False), (300, 299, False), (300, 301, True), (700, 1, True), (1, None, True)]
)
def test_a_code_is_tried_for_ten_minutes(age: float, delay: float | None, spent: bool) -> None:
    assert is_code_spent(seconds(age), None if delay is None else seconds(delay)) is spent


def test_what_is_sealed_is_what_fetch_reads() -> None:
    pair = Pair(access_token="a", refresh_token="r")
    assert pack(pair) == b'{"accessToken":"a","refreshToken":"r"}'
    assert unpack(pack(pair)) == pair
    for other in (b"", b"{}", b'{"accessToken":"a"}'):
        with pytest.raises(Permanent, match="unreadable_secret"):
            unpack(other)


def active(now: datetime = NOW, **changed: Any) -> Look:
    return Look(now=now, **{"state": "active", "sealed_pair": "…", "rt_version": 3, "refresh_at": NOW, **changed})


@pytest.mark.parametrize(
    ("look", "due"),
    [
        (Look(now=NOW), False),
        (active(), True),
        (active(state="needs_authorisation"), False),
        (active(sealed_pair=None), False),
        (active(refresh_at=NOW + seconds(1)), False),
        (active(lease_owner="other", lease_until=NOW + seconds(1)), False),
        (active(lease_owner="other", lease_until=NOW), True),
        (active(lease_owner=None, lease_until=NOW + seconds(1)), False),
        (active(lease_owner=None, lease_until=NOW - seconds(1)), True),
    ],
)
def test_when_it_is_time(look: Look, due: bool) -> None:
    assert Watch().is_due(look, 100.0) is due


def test_a_pair_that_is_first_seen_after_the_clock_was_put_back_waits_no_longer_than_it_lives() -> None:
    """T-RT-CLOCK: whoever stored it has died, or had not looked at it yet."""
    watch, pair = Watch(), active(refresh_at=NOW + seconds(3600 + 400), expires_at=NOW + seconds(3600 + 600))
    assert not watch.is_due(pair, 1000.0)
    assert not watch.is_due(pair, 1400.0)
    assert watch.is_due(pair, 1600.0)


@pytest.mark.parametrize("jump", [-3600, 3600])
def test_a_clock_that_jumps_neither_stops_nor_hastens_renewing(jump: float) -> None:
    """T-RT-CLOCK: the store's clock is put back or forward by an hour."""
    watch, renew_at = Watch(), NOW + seconds(400)
    assert not watch.is_due(active(refresh_at=renew_at), 1000.0)
    early = watch.is_due(active(now=NOW + seconds(jump + 100), refresh_at=renew_at), 1100.0)
    assert early is (jump > 0)
    assert watch.is_due(active(now=NOW + seconds(jump + 400), refresh_at=renew_at), 1400.0)
    # The next pair is timed by the clock as it is now, so it is not due again at once.
    renewed = active(now=NOW + seconds(jump + 401), rt_version=4, refresh_at=NOW + seconds(jump + 800))
    assert not watch.is_due(renewed, 1401.0)


def test_a_code_waits_for_whoever_talks_and_for_no_back_off() -> None:
    watch = Watch()
    assert watch.is_silent(Look(now=NOW), 0.0)
    assert watch.is_silent(active(lease_owner=None, lease_until=NOW + seconds(9)), 0.0)
    assert watch.is_silent(active(lease_owner="dead", lease_until=NOW), 0.0)
    stuck = active(lease_owner="dead", lease_until=NOW + seconds(3600))  # the clock went back an hour: T-RT-CLOCK
    assert not watch.is_silent(stuck, 0.0)
    assert not watch.is_silent(stuck, LEASE.total_seconds() - 1)
    assert watch.is_silent(stuck, LEASE.total_seconds())


def test_a_lease_from_before_the_clock_was_put_back_lasts_no_longer_than_a_lease() -> None:
    """T-RT-CLOCK: a holder died, then the clock went back an hour."""
    watch = Watch()
    stuck = active(lease_owner="dead", lease_until=NOW + seconds(3600))
    assert not watch.is_due(stuck, 0.0)
    assert not watch.is_due(stuck, LEASE.total_seconds() - 1)
    assert watch.is_due(stuck, LEASE.total_seconds())
