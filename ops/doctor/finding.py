"""What a check found, and the order in which checks run. Pure, but for waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ops.doctor.around import Around

State = Literal["ok", "skipped", "warning", "failed"]
STATES: tuple[State, ...] = ("ok", "skipped", "warning", "failed")
"""From the best to the worst."""

CHECK_SECONDS = 9.0
"""What one check may take: one waits for at most one other, so all of them end within 20 s."""


@dataclass(frozen=True)
class Finding:
    """What was seen; `advice` is a command or a setting's name where something is to be done."""

    state: State
    seen: str
    advice: str = ""


def ok(seen: str) -> Finding:
    """As it should be."""
    return Finding("ok", seen)


def skipped(why: str) -> Finding:
    """Not looked at."""
    return Finding("skipped", why)


def warning(seen: str, advice: str) -> Finding:
    """It works, and somebody should know."""
    return Finding("warning", seen, advice)


def failed(seen: str, advice: str) -> Finding:
    """It does not work."""
    return Finding("failed", seen, advice)


def worst(findings: Iterable[Finding]) -> Finding:
    """All in one: of the worst state, with what those of that state saw. Skipped ones do not hide what is fine."""
    found = [one for one in findings if one.state != "skipped"] or list(findings)
    state = max((one.state for one in found), key=STATES.index)
    told = [one for one in found if one.state == state]
    advice = dict.fromkeys(one.advice for one in told if one.advice)
    return Finding(state, "; ".join(dict.fromkeys(one.seen for one in told)), "; ".join(advice))


@dataclass(frozen=True)
class Check:
    """One check: the settings it needs, and the checks without which it means nothing."""

    name: str
    run: Callable[[Around], Awaitable[Finding]]
    needs: tuple[type, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """A check's name and what it found."""

    name: str
    finding: Finding


async def run_all(checks: Sequence[Check], around: Around, done: Callable[[int], None]) -> list[Result]:
    """All of them at once, each after those that it depends on, in the order given; `done` hears how many have ended.

    A check that is not among them (`--only`) is taken to be fine.
    """
    tasks: dict[str, asyncio.Task[Finding]] = {}
    ended = 0

    async def one(check: Check) -> Finding:
        nonlocal ended
        try:
            for name in check.after:
                if name in tasks and (await tasks[name]).state in ("failed", "skipped"):
                    return skipped(f"needs {name}")
            return await _bounded(check, around)
        finally:
            ended += 1
            done(ended)

    for check in checks:
        tasks[check.name] = asyncio.create_task(one(check))
    await asyncio.gather(*tasks.values())
    return [Result(check.name, tasks[check.name].result()) for check in checks]


async def _bounded(check: Check, around: Around) -> Finding:
    missing = [section for section in check.needs if not around.has(section)]
    if missing:
        reads = around.reads()
        alien = any(section not in reads for section in missing)
        return skipped(f"{around.role} does not read its settings" if alien else "needs settings")
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check.run(around)
    except TimeoutError:
        return failed(
            f"no answer within {CHECK_SECONDS:g} s", f"look at what hangs, then `gateway doctor --only {check.name}`"
        )
    except Exception as error:  # noqa: BLE001  # one check that breaks must not hide what the others found
        return failed(
            f"could not be checked ({type(error).__name__})", f"run `gateway doctor --only {check.name}` again"
        )
