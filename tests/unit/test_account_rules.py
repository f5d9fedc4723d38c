"""ingress.account.rules: a connection in its user's words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ingress.account.rules import Connection

DAY = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number) for number in range(5)]


@pytest.mark.parametrize(
    ("state", "times", "standing", "live", "since"),
    [
        ("authorised", (None, None, None), "waiting for Syncaroo", True, DAY[0]),
        ("confirmed", (DAY[1], None, None), "connected", True, DAY[1]),
        ("confirmed", (DAY[1], None, DAY[2]), "connected", True, DAY[1]),
        ("revoked", (DAY[1], DAY[3], DAY[2]), "revoked", False, DAY[1]),
        ("revoked", (None, DAY[3], None), "revoked", False, DAY[0]),
    ],
)
def test_how_a_connection_stands(
    state: str,
    times: tuple[datetime | None, ...],
    standing: str,
    live: bool,
    since: datetime,
) -> None:
    confirmed_at, revoked_at, heard_at = times
    found = Connection(99, state, DAY[0], confirmed_at, revoked_at, heard_at)
    assert (found.standing, found.live, found.since) == (standing, live, since)
