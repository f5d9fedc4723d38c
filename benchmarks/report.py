"""What the rounds of a benchmark gave, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator

from benchmarks.measure import Figure, Goal, Outcome, Spread

WORDS: dict[Figure, str] = {"rate": "rate", "cpu": "CPU per operation", "rss": "memory", "latency": "median time"}


def table(outcome: Outcome) -> str:
    """Variants and goals as Markdown: medians, with the least and the most."""
    goals = ["", *_goals(outcome)] if outcome.goals else []
    return "\n".join([f"\n## {outcome.name}\n", *_variants(outcome), *goals])


def _variants(outcome: Outcome) -> Iterator[str]:
    yield "| | per second | CPU-µs each | MiB | ms, median |"
    yield "|---|---:|---:|---:|---:|"
    for name in outcome.samples:
        rate, cpu, rss, latency = (outcome.of(name, figure) for figure in WORDS)
        taken = _spread(latency, 1) if latency.median else ""
        yield f"| {name} | {_spread(rate, 0)} | {_spread(cpu, 0)} | {_mebibytes(rss)} | {taken} |"


def _goals(outcome: Outcome) -> Iterator[str]:
    yield "| ratio | seen | must | aim | |"
    yield "|---|---:|---:|---:|---|"
    for goal in outcome.goals:
        sign = "≥" if goal.more_is_better else "≤"
        what, ratio = f"{WORDS[goal.figure]}: {goal.ours} ÷ {goal.other}", _spread(outcome.ratio(goal), 2)
        said = "met" if outcome.is_met(goal) else "MISSED"
        yield f"| {what} | {ratio} | {sign} {goal.must} | {goal.aim} | {said} |"


def _mebibytes(rss: Spread) -> str:
    return f"{rss.median / 2**20:,.0f}" if rss.median else ""


def _spread(spread: Spread, digits: int) -> str:
    return f"{spread.median:,.{digits}f} ({spread.least:,.{digits}f} to {spread.most:,.{digits}f})"


def figures(outcome: Outcome) -> bytes:
    """Every sample and every ratio, as JSON."""
    return json.dumps(
        {
            "name": outcome.name,
            "samples": {
                name: [
                    {
                        "operations": one.operations,
                        "seconds": one.seconds,
                        "perSecond": one.rate,
                        "cpuMicros": one.cpu_micros,
                        "rss": one.rss,
                        **one.more,
                    }
                    for one in samples
                ]
                for name, samples in outcome.samples.items()
            },
            "ratios": [_ratio(outcome, goal) for goal in outcome.goals],
        },
        indent=2,
    ).encode()


def _ratio(outcome: Outcome, goal: Goal) -> dict[str, object]:
    spread = outcome.ratio(goal)
    return {
        "ours": goal.ours,
        "other": goal.other,
        "figure": goal.figure,
        "median": spread.median,
        "least": spread.least,
        "most": spread.most,
        "must": goal.must,
        "aim": goal.aim,
        "met": outcome.is_met(goal),
    }
