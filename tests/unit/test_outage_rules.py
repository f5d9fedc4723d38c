"""ingress.outages: whether nobody took webhooks for a while."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.outages.rules import AWAY, was_away

seconds = st.integers(0, 10**6).map(lambda count: timedelta(seconds=count))


@pytest.mark.parametrize(
    ("gap", "served", "away"),
    [
        (None, 0, False),  # a first start
        (None, 3600, False),
        (10, 10, False),  # everyday
        (45, 0, False),  # a restart
        (60, 0, False),
        (61, 0, True),
        (3600, 1, True),  # a start after an hour
        (3600, 3600, False),  # the store was away, we were not
        (3600, 3550, False),
        (3600, 1800, True),  # started while the store was away: who knows about the half hour before
        (120, 12, True),  # stopped between two beats
        (10, 3600, False),  # others beat meanwhile
    ],
)
def test_away_is_more_than_a_minute_that_nobody_served(gap: int | None, served: int, away: bool) -> None:
    assert was_away(None if gap is None else timedelta(seconds=gap), timedelta(seconds=served)) is away


@given(seconds, seconds)
def test_who_served_all_the_time_was_not_away(gap: timedelta, more: timedelta) -> None:
    assert not was_away(gap, gap + more)
    assert was_away(gap + AWAY + timedelta(seconds=1), gap)
