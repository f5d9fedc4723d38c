"""The budget of a host: never exceeded, shared with resyncs up to their part."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from workers.fetch.pacing import RESYNC_SHARE, Bucket, debit, full_bucket

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@given(
    st.floats(0.1, 500),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 50), st.booleans()), max_size=60),
)
def test_the_budget_is_never_exceeded(rate: float, asks: list[tuple[int, int, bool]]) -> None:
    """G6: whatever is asked, in `t` seconds no more than `rate * t` and one second's worth; of resyncs, their part."""
    bucket, now = full_bucket(rate, NOW), NOW
    had = {True: 0, False: 0}
    for millis, wish, resync in asks:
        now += timedelta(milliseconds=millis)
        bucket, granted = debit(bucket, now, rate, wish, resync=resync)
        assert 0 <= granted <= wish
        had[resync] += granted
        seconds = (now - NOW).total_seconds()
        assert sum(had.values()) <= rate * seconds + max(1.0, rate) + 1e-6
        assert had[True] <= RESYNC_SHARE * rate * seconds + max(1.0, RESYNC_SHARE * rate) + 1e-6


def test_the_budget_refills_waits_and_survives_a_clock_that_goes_back() -> None:
    bucket, granted = debit(full_bucket(2.0, NOW), NOW, 2.0, 5)
    assert granted == 2
    assert debit(bucket, NOW + timedelta(seconds=0.4), 2.0, 1)[1] == 0
    assert debit(bucket, NOW + timedelta(seconds=0.5), 2.0, 5)[1] == 1
    assert debit(bucket, NOW + timedelta(hours=1), 2.0, 5)[1] == 2
    back, granted = debit(bucket, NOW - timedelta(hours=1), 2.0, 5)
    assert granted == 0
    assert debit(back, NOW - timedelta(minutes=59), 2.0, 5)[1] == 2
    blocked = Bucket(2.0, 1.0, NOW, NOW + timedelta(seconds=3))
    assert debit(blocked, NOW + timedelta(seconds=2), 2.0, 5)[1] == 0
    assert debit(blocked, NOW + timedelta(seconds=3), 2.0, 5)[1] == 2


def test_resyncs_have_their_part_and_leave_the_rest() -> None:
    bucket, granted = debit(full_bucket(20.0, NOW), NOW, 20.0, 50, resync=True)
    assert granted == 6
    assert debit(bucket, NOW, 20.0, 50)[1] == 14, "what they left is for webhooks"
    later = NOW + timedelta(seconds=0.5)
    assert debit(bucket, later, 20.0, 50, resync=True)[1] == 3


def test_webhooks_may_use_all_of_it() -> None:
    bucket, granted = debit(full_bucket(20.0, NOW), NOW, 20.0, 50)
    assert granted == 20
    assert debit(bucket, NOW, 20.0, 1, resync=True)[1] == 0


def test_a_resync_goes_on_at_any_rate() -> None:
    """Also when its part is less than one call a second."""
    bucket, granted = debit(full_bucket(0.5, NOW), NOW, 0.5, 5, resync=True)
    assert granted == 1
    assert debit(bucket, NOW + timedelta(seconds=6), 0.5, 5, resync=True)[1] == 0
    assert debit(bucket, NOW + timedelta(seconds=7), 0.5, 5, resync=True)[1] == 1
