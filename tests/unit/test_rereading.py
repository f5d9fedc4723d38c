"""workers.fetch.rereading: what a webhook says about its connection's feed, and when everything is read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.fetch.rereading import NEVER, QUIET, Feed, Terms, heard, plan, read_again, why_again

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
TERMS = Terms(interval=6 * HOUR, burst_quiet=MINUTE, silence_after=HOUR)
OFF = Terms(NEVER, NEVER, NEVER)
BUSY = Feed(heard_at=NOW, bursts=5, usual_quiet=600.0, first_read=True, resync_at=NOW + 6 * HOUR)
"""Heard every ten minutes so far."""

gaps = st.lists(st.integers(0, 100_000).map(lambda seconds: timedelta(seconds=seconds)), max_size=20)
spreads = st.floats(0, 1)
times = st.sampled_from([NEVER, SECOND, MINUTE, HOUR, 6 * HOUR])
terms = st.builds(Terms, times, times, times)


def after(waits: Sequence[timedelta]) -> Feed:
    """A feed that was heard once, and again after each of these waits."""
    now, feed = NOW, heard(Feed(), NOW)
    for wait in waits:
        now += wait
        feed = heard(feed, now)
    return feed


# --- heard ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waits", "bursts", "usual"),
    [
        ([], 0, None),
        ([SECOND] * 100, 0, None),
        ([59 * SECOND], 0, None),
        ([MINUTE], 1, 60.0),
        ([MINUTE, SECOND, 5 * MINUTE, SECOND], 2, 300.0),
        ([HOUR, MINUTE], 2, 3420.0),
        ([HOUR, MINUTE, MINUTE], 3, 3249.0),
        ([12 * HOUR, *[SECOND] * 1000], 1, 43200.0),
    ],
)
def test_a_burst_begins_after_a_quiet_minute(waits: Sequence[timedelta], bursts: int, usual: float | None) -> None:
    feed = after(waits)
    assert (feed.bursts, feed.usual_quiet) == (bursts, pytest.approx(usual) if usual else None)
    assert feed.heard_at == NOW + sum(waits, NEVER)


def test_hearing_ends_a_silence_and_leaves_the_plan() -> None:
    silent = replace(BUSY, silent_since=NOW + 2 * HOUR)
    feed = heard(silent, NOW + 3 * HOUR)
    assert (feed.silent_since, feed.first_read, feed.resync_at) == (None, True, BUSY.resync_at)


def test_a_clock_that_goes_back_is_no_quiet() -> None:
    assert heard(BUSY, NOW - HOUR) == BUSY


@given(gaps)
def test_what_is_usual_is_never_less_than_the_last_quiet_and_never_more_than_the_longest(
    waits: list[timedelta],
) -> None:
    feed = after(waits)
    quiet = [wait.total_seconds() for wait in waits if wait >= QUIET]
    assert feed.bursts == len(quiet)
    assert (feed.usual_quiet is None) == (not quiet)
    if quiet:
        assert feed.usual_quiet is not None
        assert quiet[-1] <= feed.usual_quiet <= max(quiet)


# --- why --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feed", "later", "terms", "why"),
    [
        # never heard: there may be targets all the same
        (Feed(), HOUR, TERMS, None),
        (Feed(resync_at=NOW), NEVER, TERMS, "interval"),
        (Feed(resync_at=NOW), NEVER, OFF, None),
        # the interval
        (BUSY, 6 * HOUR - SECOND, replace(TERMS, silence_after=NEVER), None),
        (BUSY, 6 * HOUR, replace(TERMS, silence_after=NEVER), "interval"),
        (replace(BUSY, resync_at=None), 7 * HOUR, replace(TERMS, silence_after=NEVER), None),
        # the first burst
        (Feed(heard_at=NOW), MINUTE - SECOND, TERMS, None),
        (Feed(heard_at=NOW), MINUTE, TERMS, "first_burst"),
        (Feed(heard_at=NOW), MINUTE, replace(TERMS, interval=NEVER), "first_burst"),
        (Feed(heard_at=NOW), HOUR, replace(TERMS, burst_quiet=NEVER), None),
        (Feed(heard_at=NOW, first_read=True), HOUR, TERMS, None),
        (Feed(heard_at=NOW, resync_at=NOW), MINUTE, TERMS, "first_burst"),
        # silence: longer than SILENCE_AFTER and than three times the usual
        (BUSY, HOUR, TERMS, None),
        (BUSY, HOUR + SECOND, TERMS, "silence"),
        (BUSY, HOUR + SECOND, replace(TERMS, interval=NEVER, burst_quiet=NEVER), "silence"),
        (BUSY, 9 * HOUR, replace(TERMS, interval=NEVER, silence_after=NEVER), None),
        (replace(BUSY, bursts=4), HOUR + SECOND, TERMS, None),
        (replace(BUSY, usual_quiet=3600.0), 3 * HOUR, TERMS, None),
        (replace(BUSY, usual_quiet=3600.0), 3 * HOUR + SECOND, TERMS, "silence"),
        (replace(BUSY, silent_since=NOW), 2 * HOUR, TERMS, None),
        (replace(BUSY, resync_at=NOW), 2 * HOUR, TERMS, "silence"),
        # missed: whatever the settings, and before all others
        (Feed(missed_at=NOW), NEVER, OFF, "missed"),
        (replace(BUSY, missed_at=NOW), 2 * HOUR, TERMS.heard_for(NEVER), "missed"),
    ],
)
def test_why_everything_is_read_again(feed: Feed, later: timedelta, terms: Terms, why: str | None) -> None:
    assert why_again(feed, NOW + later, terms) == why


@pytest.mark.parametrize(
    ("listening", "why"), [(NEVER, None), (59 * SECOND, None), (MINUTE, "silence"), (HOUR, "silence")]
)
def test_quiet_is_no_sign_before_the_queue_was_heard_for_a_minute(listening: timedelta, why: str | None) -> None:
    """After a stop of the workers, what waits in the queue comes first."""
    assert why_again(BUSY, NOW + 2 * HOUR, TERMS.heard_for(listening)) == why
    first = why_again(Feed(heard_at=NOW), NOW + 2 * HOUR, TERMS.heard_for(listening))
    assert (first is not None) == (why is not None)
    assert why_again(Feed(resync_at=NOW), NOW, TERMS.heard_for(listening)) == "interval"


def test_short_times_are_waited_for_no_longer_than_they_are() -> None:
    short = Terms(NEVER, SECOND, SECOND)
    assert short.heard_for(SECOND) == short


@given(gaps, st.integers(0, 10**6), terms, spreads)
def test_read_again_settles_every_reason_until_something_new_happens(
    waits: list[timedelta], later: int, given_terms: Terms, spread: float
) -> None:
    feed = plan(after(waits), NOW, given_terms, spread)
    assert feed.heard_at is not None
    now = feed.heard_at + timedelta(seconds=later)
    if why_again(feed, now, given_terms) is None:
        return
    again = read_again(feed, feed, now, given_terms, spread)
    assert why_again(again, now, given_terms) is None
    assert why_again(again, now + given_terms.interval * 0.99, given_terms) != "interval"
    assert (again.heard_at, again.bursts, again.usual_quiet) == (feed.heard_at, feed.bursts, feed.usual_quiet)


def test_what_was_missed_after_the_reading_began_is_not_settled_by_it() -> None:
    """Whatever the store's clock said meanwhile."""
    before = Feed(missed_at=NOW)
    missed = [
        read_again(Feed(missed_at=NOW + one), before, NOW + HOUR, OFF, 0.5).missed_at
        for one in (NEVER, SECOND, -SECOND)
    ]
    assert missed == [None, NOW + SECOND, NOW - SECOND]
    assert read_again(before, Feed(), NOW + HOUR, OFF, 0.5).missed_at == NOW


# --- the plan ---------------------------------------------------------------------------------------------------------


@given(terms, spreads, spreads)
def test_the_next_time_is_within_a_tenth_of_the_interval_and_stands(
    given_terms: Terms, spread: float, other: float
) -> None:
    again = read_again(BUSY, BUSY, NOW, given_terms, spread)
    if not given_terms.interval:
        assert again.resync_at is None
        return
    assert again.resync_at is not None
    assert given_terms.interval <= again.resync_at - NOW <= given_terms.interval * 1.1
    assert plan(again, NOW, given_terms, other) == again


@pytest.mark.parametrize("planned", [None, NOW + 100 * HOUR])
def test_without_a_plan_or_with_one_of_a_longer_interval_a_random_moment_is_planned(planned: datetime | None) -> None:
    feed = replace(BUSY, resync_at=planned)
    moments = [plan(feed, NOW, TERMS, spread).resync_at for spread in (0.0, 0.5, 1.0)]
    assert moments == [NOW, NOW + 3 * HOUR, NOW + 6 * HOUR]
    assert plan(feed, NOW, OFF, 0.5).resync_at is None
