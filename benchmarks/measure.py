"""Variants that take turns, what each round gave, and what the rounds say together."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Sample:
    """One variant in one round: how much it did in how long, and what that cost the processes that are measured."""

    operations: int
    seconds: float
    cpu_seconds: float
    """Of the service alone: neither the load nor the broker."""
    rss: int = 0
    """Bytes at the end; 0: not measured."""
    more: Mapping[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds

    @property
    def cpu_micros(self) -> float:
        """CPU-µs per operation."""
        return self.cpu_seconds / self.operations * 1e6

    @property
    def median_ms(self) -> float:
        """How long one operation took, by its median; 0: not measured."""
        return self.more.get("median_ms", 0.0)

    def figure(self, name: Figure) -> float:
        """The figure that is compared."""
        return {"rate": self.rate, "cpu": self.cpu_micros, "rss": float(self.rss), "latency": self.median_ms}[name]


Figure = Literal["rate", "cpu", "rss", "latency"]
Variant = Callable[[], Awaitable[Sample]]


@dataclass(frozen=True)
class Goal:
    """What is asked of a ratio: ours by another's, of one figure; `must` is a least (rate) or a most (others)."""

    ours: str
    other: str
    figure: Figure
    must: float
    aim: float

    @property
    def more_is_better(self) -> bool:
        """Whether it is a least."""
        return self.figure == "rate"


@dataclass(frozen=True)
class Spread:
    """Of several rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Outcome:
    """All rounds of one benchmark: samples by variant, in the order of the rounds."""

    name: str
    samples: Mapping[str, Sequence[Sample]]
    goals: Sequence[Goal]

    def of(self, variant: str, figure: Figure) -> Spread:
        """One variant's figure over the rounds."""
        return Spread.of([one.figure(figure) for one in self.samples[variant]])

    def ratio(self, goal: Goal) -> Spread:
        """Ours by the other's, round by round."""
        pairs = zip(self.samples[goal.ours], self.samples[goal.other], strict=True)
        return Spread.of([ours.figure(goal.figure) / other.figure(goal.figure) for ours, other in pairs])

    def is_met(self, goal: Goal) -> bool:
        """Whether the median is what it must be."""
        median = self.ratio(goal).median
        return median >= goal.must if goal.more_is_better else median <= goal.must


async def take_turns(
    name: str, variants: Mapping[str, Variant], goals: Sequence[Goal], rounds: int, tell: Callable[[str], None]
) -> Outcome:
    """So many rounds, every variant once in each; each round begins with another one."""
    samples: dict[str, list[Sample]] = {variant: [] for variant in variants}
    for number in range(rounds):
        for variant in _turned(list(variants), number):
            sample = await variants[variant]()
            samples[variant].append(sample)
            tell(f"{name}, round {number + 1} of {rounds}, {variant}: {sample.rate:,.0f}/s, {sample.cpu_micros:.0f} µs")
    return Outcome(name, samples, [goal for goal in goals if {goal.ours, goal.other} <= samples.keys()])


def _turned(names: list[str], by: int) -> list[str]:
    by %= len(names)
    return names[by:] + names[:by]
