"""What flows and what waits, as values: the numbers that operators look at."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Waiting(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How many wait (counted up to `BOUND`), and since when the oldest does; null: not known, or none waits."""

    count: int = 0
    oldest_seconds: float | None = None


class Targets(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is to be fetched. A webhook's target waits since its latest webhook was taken up; one of a resync waits at
    least since the first event that came after the wish. `put_off` wait for a later time, the next in `next_seconds`.
    """

    webhook: Waiting = Waiting()
    resync: Waiting = Waiting()
    put_off: Waiting = Waiting()
    next_seconds: float | None = None


class Attempts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Attempts that ended in the last minute: by outcome, and by class of status (`2xx`; `none`: no answer)."""

    by_outcome: dict[str, int] = {}
    by_status: dict[str, int] = {}


class Events(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Events that wait to be published, how many were published in the last minute (at least), and listing versions
    written in it, by change."""

    unpublished: Waiting = Waiting()
    published_last_minute: int = 0
    changes_last_minute: dict[str, int] = {}


class ParkedGroup(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is parked of one queue for one reason."""

    queue: str
    reason: str
    count: int
    oldest_seconds: float


class Held(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Listings held for a person: all, and by connection (the first hundred)."""

    count: int = 0
    by_connection: dict[str, int] = {}


class GrantFlow(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Our access to Syncaroo. Times that are over are negative; `renewing`: somebody is talking to Syncaroo now;
    `attempts` have failed since the last success, the last one with `last_error`."""

    state: str = "none"
    expires_in_seconds: float | None = None
    refresh_in_seconds: float | None = None
    renewing: bool = False
    attempts: int = 0
    last_error: str | None = None


class Silence(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Seconds since connections were heard: the longest of all, and by connection (the hundred that are quiet for
    longest). `unusual` are quiet for longer than is usual with them."""

    longest_seconds: float | None = None
    by_connection: dict[str, float] = {}
    unusual: int = 0


class ApiBudget(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Calls left of one API host when it was last called, and for how long nobody calls it, as it asked for."""

    tokens: float
    blocked_seconds: float = 0.0


class Flow(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Everything that flows, at one time (`at`, the store's clock, as all ages are)."""

    at: datetime
    targets: Targets
    attempts: Attempts
    listings: int
    events: Events
    parked: list[ParkedGroup]
    held: Held
    grant: GrantFlow
    connections: dict[str, int]
    silence: Silence
    budgets: dict[str, ApiBudget]
