"""What goes wrong when: drawn from a seed, so that a run can be played again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

PAUSE_SECONDS = (1.0, 4.0)
"""Between the beginnings of two troubles: they overlap now and then."""


@dataclass(frozen=True)
class Kind:
    """A way in which things go wrong; two that share one of their `places` are never at once."""

    name: str
    places: tuple[str, ...]
    seconds: tuple[float, float] = (1.0, 6.0)
    """How long it lasts, from and to."""


@dataclass(frozen=True)
class Trouble:
    """One kind, from `at` for so many seconds; both since the beginning."""

    kind: Kind
    at: float
    seconds: float

    @property
    def over(self) -> float:
        """When it has ended."""
        return self.at + self.seconds


def planned(kinds: Sequence[Kind], seed: int, seconds: float) -> list[Trouble]:
    """All kinds in turn, shuffled anew each time, until so many seconds are over: what a short run leaves out is luck,
    in a long one each comes again and again."""
    dice, deck, found = Random(f"troubles {seed}"), list[Kind](), list[Trouble]()  # noqa: S311  # seeded, to be repeated
    free: dict[str, float] = {}
    at = dice.uniform(*PAUSE_SECONDS)
    while True:
        if not deck:
            deck = dice.sample(kinds, len(kinds))
        kind = deck.pop()
        begin = max(at, *(free.get(place, 0.0) for place in kind.places))
        trouble = Trouble(kind, round(begin, 2), round(dice.uniform(*kind.seconds), 2))
        if trouble.over > seconds:
            return found
        found.append(trouble)
        free |= dict.fromkeys(kind.places, trouble.over + PAUSE_SECONDS[0])
        at = begin + dice.uniform(*PAUSE_SECONDS)
