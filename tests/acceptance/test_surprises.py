"""Processes stand still, and meet errors that nobody expects, at every point of `tests.kill.points`, under load: they
live on, and nothing is lost.

In each mode one process of a role plays all its points, as it gets to them. It all happens once, in `played`, both
databases side by side; the tests then look at what came of it. `-k` with a point's name plays that one alone. Points on
the way to Syncaroo's tokens are `test_grant`'s.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped, unused-ignore]  # it ships no types
import pytest
import pytest_asyncio

from common.codec import loads
from common.errors import GatewayError
from ops.stack import WORKERS
from tests.acceptance.leads import (
    DATABASES,
    SECOND_CONNECTION,
    apart,
    at_work,
    cells,
    changing,
    lead_to,
    onboarded,
    places,
    telling,
)
from tests.acceptance.store import ask
from tests.acceptance.world import Place, World, same_port, selected
from tests.fixtures.broker import Vhosts
from tests.kill.entry import WENT_ON, Ordered, command, marker, orders
from tests.kill.points import OF_THE_FLOW, POINTS
from tests.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

MODES = ("stop", "raise")
SECONDS = 30.0
"""A deadline, with patience, for a busy machine; two gateways are played side by side."""
STANDS = 0.3
"""Seconds that a process stands still, unless it is to be longer."""
STANDS_LONGER: Mapping[str, float] = {
    "relay.read": 17.0,  # it has no pulse, and another, which is started, leads
    "reconcile.in_transaction": 6.0,  # SQLite's lock: all others hear that the store is away
}
TAKEN_OVER = (
    "fetch.claimed",
    "fetch.after_page_1",
    "fetch.published",
    "fetch.walk_kept",
    "fetch.numbered",
    "fetch.gone_published",
    "fetch.suspected",
)
"""Here its leases are ended in the store, another answers what it had claimed, and it wakes up to what is not its own.
Where a commit is next, nobody can: the claim's row is locked, on SQLite the store."""
PARKED: Mapping[str, str] = {
    "unusable_webhook": "`Changes` tells no target now and then",
    "refused": "a 403 leads to `fetch.giving_up_commits`",
}
"""Reasons for which something may be parked."""
SAID_500 = (r"violations: #\d+ platform's ",)
"""An ingress that meets an error on the way to a token says so to Syncaroo; the guide knows no such answer."""


ALONE_AGAIN = "several that fail together are tried again one by one, without a word; only one alone is complained of"
NEED_NOT_TELL: Mapping[str, str] = {
    "fetch.delivered": ALONE_AGAIN,
    "fetch.before_mark_commits": ALONE_AGAIN,
    "fetch.marked": ALONE_AGAIN,
    "fetch.before_outcome_commits": ALONE_AGAIN,
    "fetch.resync_half_marked": ALONE_AGAIN,
    "reconcile.in_transaction": ALONE_AGAIN,
    "reconcile.committed": ALONE_AGAIN,
}
"""Points whose error may leave no word in the log, and why; all others are to."""


Claims = Mapping[tuple[int, str], int]
"""By connection and URL, the number under which it was claimed."""


@dataclass
class Played:
    """By mode and point: whether the process `was_there`, and how it `lived_on`; why a play `failed`."""

    was_there: set[str] = field(default_factory=set)
    lived_on: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    taken_over: dict[str, Claims] = field(default_factory=dict)
    """By point, what another had answered when the process woke up."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def played(
    request: pytest.FixtureRequest, directory: Path, vhosts: Vhosts, urls: Mapping[str, str]
) -> dict[str, Played]:
    """By database; everything that the selected tests want to happen, has."""
    wanted = {database: set[str]() for database in DATABASES}
    for cell in selected(request, "cell"):
        database, _, play = cell.partition(" ")
        wanted[database].add(play)
    runs = {database: Played() for database in DATABASES}
    async with places(directory, vhosts, urls) as found:
        await asyncio.gather(
            *(_all_stages(runs[database], found[database], plays) for database, plays in wanted.items() if plays)
        )
    return runs


# --- the plays


async def _all_stages(run: Played, place: Place, wanted: set[str]) -> None:
    """The workers while everything changes; then the ingress."""
    with apart(run.failed, *wanted):
        async with onboarded(place, rates=6) as made:
            async with changing(made):
                await asyncio.gather(*(_lane(run, made, role, wanted) for role in WORKERS))
            if wanted & {f"{mode} park.published" for mode in MODES}:
                await _replay_what_was_refused(made)
            await made.ledger(40)
            async with telling(made):
                await _lane(run, made, "ingress", wanted)
            await made.ledger(40, allow=SAID_500)
            reasons = {letter["reason"] for letter in await made.admin.dead_letters()}
            assert reasons <= PARKED.keys(), "a retry would have saved the others"


async def _replay_what_was_refused(made: World) -> None:
    """As an operator does: what leads to `park.published` is a refusal of messages that are right."""
    letters = await until(lambda: made.admin.dead_letters(reason="as_ordered"), what="what was refused")
    for letter in letters:
        await made.admin.replay(letter["id"])


async def _lane(run: Played, made: World, role: str, wanted: set[str]) -> None:
    """A process of this role for each mode; then one as it always is."""
    for mode in MODES:
        points = [point.name for point in POINTS.values() if point.role == role and f"{mode} {point.name}" in wanted]
        if points:
            with apart(run.failed, *(f"{mode} {point}" for point in points)):
                await _play(run, made, role, mode, points)
    if not made.stack.names(role):
        [name] = await made.stack.start(role, settings=same_port(made))
        await at_work(made, name, lives=1)


async def _play(run: Played, made: World, role: str, mode: str, points: Sequence[str]) -> None:
    """The process gets to each of the points, and ends when it is told to, not before."""
    for name in made.stack.names(role):
        assert await made.stack.terminate(name) == 0
    [name] = await made.stack.start(role, command=command(role), settings={**orders(mode, points), **same_port(made)})
    leading = asyncio.create_task(_lead(run, made, mode, points))
    try:
        await _go_through(run, made, name, mode, points, leading)
    finally:
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
    assert made.stack.running(name), made.stack.exit_code(name)
    if "provider.code_redeemed" in points:
        await made.connect(_other(mode), has_listings=False)  # whatever became of the first attempt
    assert await made.stack.terminate(name) == 0
    for claims in run.taken_over.values():
        assert not [key for key, number in claims.items() if number in _ended(made, claims)[key]], "it was too late"
    _check_errors(made.stack.logs(name), set(points) if mode == "raise" else set())
    run.lived_on |= {f"{mode} {point}" for point in points}


async def _lead(run: Played, made: World, mode: str, points: Sequence[str]) -> None:
    """To one after another: what leads to the next may be in the way of the one before, or be done by another."""
    for point in points:
        await lead_to(made, point, other=_other(mode))
        await until(partial(run.was_there.__contains__, f"{mode} {point}"), SECONDS, what=f"{point} to be passed")


def _other(mode: str) -> int:
    return SECOND_CONNECTION + MODES.index(mode)


async def _go_through(
    run: Played, made: World, name: str, mode: str, points: Sequence[str], leading: asyncio.Task[None]
) -> None:
    """In whatever order it gets there."""
    left = {point: marker(made.stack.directory, mode, point) for point in points}

    def reached() -> str | None:
        assert made.stack.running(name), f"{name} ended with {made.stack.exit_code(name)}"
        assert not leading.done() or leading.exception() is None, leading.exception()
        return next((point for point, there in left.items() if there.exists()), None)

    while left:
        point = await until(reached, SECONDS, what=f"one of {', '.join(left)} to be reached", pace=0.02)
        there = left.pop(point)
        if mode == "stop":
            await _stand_still(run, made, name, point, there)
        run.was_there.add(f"{mode} {point}")


async def _stand_still(run: Played, made: World, name: str, point: str, there: Path) -> None:
    await until(lambda: _is_still(made, name), what=f"{name} to stand still")
    others: list[str] = []
    if point in TAKEN_OVER:
        claims = _end_leases(made)
        others = await made.stack.start("fetch")
        await until(lambda: _have_ended_later(made, claims), SECONDS, what=f"another to answer {claims}")
        run.taken_over[point] = claims
    else:
        others = await made.stack.start("relay") if point == "relay.read" else []
        await asyncio.sleep(STANDS_LONGER.get(point, STANDS))
    assert _is_still(made, name)
    assert not _went_on(there)
    made.stack.resume(name)
    await until(lambda: _went_on(there), what=f"{name} to go on", pace=0.02)
    for other in others:
        assert await made.stack.terminate(other) == 0


def _end_leases(made: World) -> Claims:
    """All that are held; nobody fetches. What was held."""
    database_url = made.stack.environment["DATABASE_URL"]
    held = ask(database_url, "SELECT connection_id, url, started FROM target WHERE lease_owner IS NOT NULL")
    ask(database_url, "UPDATE target SET lease_until = '2000-01-01 00:00:00.000000' WHERE lease_owner IS NOT NULL")
    assert held
    return {(connection_id, url): started for connection_id, url, started in held}


def _have_ended_later(made: World, claims: Claims) -> bool:
    """Whether each was claimed again, and that has come to an end."""
    ended = _ended(made, claims)
    return all(max(ended[key], default=0) > number for key, number in claims.items())


def _ended(made: World, claims: Claims) -> Mapping[tuple[int, str], set[int]]:
    """By connection and URL, the numbers of the claims that have come to an end, from the first of these on."""
    statement = f"SELECT connection_id, url, started FROM attempt WHERE started >= {min(claims.values())}"
    found: dict[tuple[int, str], set[int]] = defaultdict(set)
    for connection_id, url, started in ask(made.stack.environment["DATABASE_URL"], statement):
        found[connection_id, url].add(started)
    return found


def _went_on(there: Path) -> bool:
    return WENT_ON in there.read_text()


def _is_still(made: World, name: str) -> bool:
    return bool(psutil.Process(made.stack.pid(name)).status() == psutil.STATUS_STOPPED)


def _check_errors(logged: str, ordered: set[str]) -> None:
    """Every error that was ordered is told, and nothing else is called one."""
    errors = [line for line in map(_read, logged.splitlines()) if line.get("level") in ("error", "critical")]
    others = [line for line in errors if not _points(line)]
    assert not others
    told = {point for line in errors for point in _points(line)}
    assert told <= ordered
    assert not ordered - told - NEED_NOT_TELL.keys(), "swallowed"


def _points(line: Mapping[str, Any]) -> set[str]:
    """Where the errors were ordered that the line tells."""
    raised = line.get("exception")
    told = raised if isinstance(raised, list) else []
    return {str(one["exc_value"]) for one in told if one["exc_type"] == Ordered.__name__}


def _read(line: str) -> dict[str, Any]:
    try:
        found = loads(line.encode())
    except GatewayError:
        found = None
    return found if isinstance(found, dict) else {"level": "error", "event": line}


# --- what came of it


@pytest.mark.parametrize("cell", cells(["stop"], OF_THE_FLOW))
async def test_a_process_stands_still_at_a_point_and_goes_on_and_nothing_is_lost(
    played: dict[str, Played], cell: str
) -> None:
    """T-KILL: SIGSTOP for a moment, at some points for longer than a lease, then SIGCONT."""
    _check(played, cell)


@pytest.mark.parametrize("cell", cells(["raise"], OF_THE_FLOW))
async def test_a_process_meets_an_error_at_a_point_and_lives_on_and_nothing_is_lost(
    played: dict[str, Played], cell: str
) -> None:
    """T-KILL: of a kind that nobody expects."""
    _check(played, cell)


def _check(played: dict[str, Played], cell: str) -> None:
    database, _, play = cell.partition(" ")
    run = played[database]
    assert play not in run.failed, run.failed[play]
    assert play in run.was_there, "the point was reached"
    assert play in run.lived_on
