"""When everything known of a connection is read again, and what a webhook says about that. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

QUIET = timedelta(seconds=60)
"""After so long without a webhook the next one begins a burst."""
KNOWN_AFTER_BURSTS = 5
UNUSUAL = 3
FADING = 0.95
NEVER = timedelta(0)

Why = Literal["missed", "silence", "first_burst", "interval"]


@dataclass(frozen=True)
class Feed:
    """A connection's stream of webhooks, as far as it is known.

    `bursts` counts how often it was heard again after a quiet while; `usual_quiet` are the seconds of the longest such
    while, fading from burst to burst; `silent_since` is set while it is quiet for unusually long, `missed_at` while
    webhooks are known to be lost.
    """

    heard_at: datetime | None = None
    bursts: int = 0
    usual_quiet: float | None = None
    silent_since: datetime | None = None
    first_read: bool = False
    missed_at: datetime | None = None
    resync_at: datetime | None = None


@dataclass(frozen=True)
class Terms:
    """RESYNC_INTERVAL, BURST_QUIET and SILENCE_AFTER; each is off at 0."""

    interval: timedelta
    burst_quiet: timedelta
    silence_after: timedelta

    @property
    def shortest(self) -> timedelta | None:
        """The shortest time that matters; None: all are off."""
        return min(filter(None, (self.interval, self.burst_quiet, self.silence_after)), default=None)

    @property
    def latest_plan(self) -> timedelta:
        """How far ahead a resync may be planned: the interval and the most that is added to it."""
        return self.interval * 1.1

    def heard_for(self, listening: timedelta) -> Terms:
        """The terms of a process that has taken up webhooks for so long: after a stop of the workers those that wait
        in the queue come first, and only then is quiet a sign."""

        def judged(after: timedelta) -> timedelta:
            return after if listening >= min(QUIET, after) else NEVER

        return replace(self, burst_quiet=judged(self.burst_quiet), silence_after=judged(self.silence_after))


def heard(feed: Feed, now: datetime) -> Feed:
    """The feed after a webhook."""
    before = feed.heard_at or now
    quiet = now - before
    after = replace(feed, heard_at=max(now, before), silent_since=None)
    if quiet < QUIET:
        return after
    usual = max(quiet.total_seconds(), FADING * (feed.usual_quiet or 0.0))
    return replace(after, bursts=feed.bursts + 1, usual_quiet=usual)


def why_again(feed: Feed, now: datetime, terms: Terms) -> Why | None:
    """Why everything known of the connection is read again now, if it is."""
    if feed.missed_at is not None:
        return "missed"
    if _is_silent(feed, now, terms):
        return "silence"
    if _first_burst_is_over(feed, now, terms):
        return "first_burst"
    if terms.interval and feed.resync_at is not None and feed.resync_at <= now:
        return "interval"
    return None


def read_again(feed: Feed, before: Feed, now: datetime, terms: Terms, spread: float) -> Feed:
    """The feed after everything was made wanted; `before` is what it was when that began.

    That settles every reason that holds, but for webhooks missed since; the next time is planned after the interval and
    up to a tenth of it. `spread`, 0 to 1, is random: connections that began together do not stay so.
    """
    missed_since = feed.missed_at != before.missed_at  # not later: the clock may have been set back meanwhile
    return replace(
        feed,
        first_read=feed.first_read or _first_burst_is_over(feed, now, terms),
        missed_at=feed.missed_at if missed_since else None,
        silent_since=now if _is_silent(feed, now, terms) else feed.silent_since,
        resync_at=now + terms.interval * (1 + spread / 10) if terms.interval else None,
    )


def plan(feed: Feed, now: datetime, terms: Terms, spread: float) -> Feed:
    """The feed with a plan that suits the interval. One without a plan, or with one of a longer interval, gets a random
    moment of it, so that not all come at once.
    """
    if not terms.interval:
        return replace(feed, resync_at=None)
    if feed.resync_at is None or feed.resync_at > now + terms.latest_plan:
        return replace(feed, resync_at=now + terms.interval * spread)
    return feed


def _is_silent(feed: Feed, now: datetime, terms: Terms) -> bool:
    if not terms.silence_after or feed.heard_at is None or feed.silent_since is not None:
        return False
    usual = timedelta(seconds=feed.usual_quiet or 0.0)
    return feed.bursts >= KNOWN_AFTER_BURSTS and now - feed.heard_at > max(terms.silence_after, UNUSUAL * usual)


def _first_burst_is_over(feed: Feed, now: datetime, terms: Terms) -> bool:
    if not terms.burst_quiet or feed.heard_at is None or feed.first_read:
        return False
    return now - feed.heard_at >= terms.burst_quiet
