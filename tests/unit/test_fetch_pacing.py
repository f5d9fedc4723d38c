"""How fast Syncaroo is asked: budgets with the part of resyncs, room for each connection, pauses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.fetch.pacing import RESYNC_SHARE, Bucket, Purse, Room, cap_of, debit, full_bucket, interleaved, pauses

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


def test_a_purse_pays_each_host_apart_and_knows_who_is_spent() -> None:
    purse = Purse({"a": full_bucket(2.0, NOW), "b": Bucket(2.0, 1.0, NOW, NOW + timedelta(seconds=1))}, 2.0, NOW)
    assert purse.spent(resync=False) == ["b"], "blocked"
    assert [purse.take("a", resync=True), purse.take("a", resync=True)] == [True, False]
    assert (purse.spent(resync=True), purse.spent(resync=False)) == (["a", "b"], ["b"])
    assert (purse.empty(resync=True), purse.empty()) == (True, False)
    assert purse.take("a", resync=False)
    assert purse.empty()
    assert purse.take("new", resync=False), "a host that was never called"
    assert not purse.empty()


def test_nothing_is_spent_before_the_first_call() -> None:
    assert not Purse({}, 2.0, NOW).empty()


@pytest.mark.parametrize(("concurrency", "cap"), [(1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (16, 12), (64, 48)])
def test_a_quarter_of_the_calls_is_never_one_connections(concurrency: int, cap: int) -> None:
    assert cap_of(concurrency) == cap


def test_room_is_counted_for_all_and_for_each_connection() -> None:
    room = Room(3, 2, {99: 1, 98: 2})
    assert room.full() == [98]
    assert (room.has(99), room.has(98), room.has(97)) == (True, False, True)
    room.take(99)
    assert (room.free, room.full()) == (2, [98, 99])
    room.take(97)
    room.take(97)
    assert (room.free, room.has(96)) == (0, False)
    assert Room(1).has(99)


@pytest.mark.parametrize(
    ("paused", "depth", "pausing"),
    [
        (False, 1000, False),
        (False, 1001, True),
        (True, 1000, True),
        (True, 501, True),
        (True, 500, False),
        (True, 0, False),
        (False, None, True),
        (True, None, True),
    ],
)
def test_claims_pause_from_over_the_limit_down_to_half_of_it(paused: bool, depth: int | None, pausing: bool) -> None:
    assert pauses(paused, depth, 1000) is pausing


def test_two_lines_are_served_one_after_the_other_and_nobody_twice() -> None:
    assert interleaved([1, 2, 3], [7, 2, 8]) == [1, 7, 2, 8, 3]
    assert interleaved([], [7, 8]) == [7, 8]
    assert interleaved([1], []) == [1]
