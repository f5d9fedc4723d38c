"""Moments on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ops.moments import EARLIEST, moment_of, parse_when

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2h", AT - timedelta(hours=2)),
        ("30m", AT - timedelta(minutes=30)),
        ("1d", AT - timedelta(days=1)),
        ("0", AT),
        ("2026-01-02T03:04Z", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        ("2026-01-02T05:04+02:00", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        ("2026-01-02T03:04", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("99999999d", EARLIEST),
        ("0001-01-01", EARLIEST),
    ],
)
def test_since_is_a_duration_or_a_time(text: str, at: datetime) -> None:
    assert moment_of(parse_when(text), AT) == at


@pytest.mark.parametrize("text", ["", "2 hours", "yesterday", "-2h", "12:00"])
def test_since_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="such as 2h, or a moment, such as"):
        moment_of(parse_when(text), AT)
