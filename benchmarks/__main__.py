"""`python -m benchmarks [NAME …]`: run benchmarks, print the tables, and keep the figures.

Examples:
  python -m benchmarks                       all of them
  python -m benchmarks ingress --rounds 3    one, shorter
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import (
    concurrency,
    drain,
    fetch,
    hop,
    ingress,
    latency,
    memory,
    overload,
    pipeline,
    publish,
    reconcile,
    scale,
)
from benchmarks.broker import Bench, bench
from benchmarks.measure import Goal, Variant, take_turns
from benchmarks.processes import PEERS, Failed
from benchmarks.report import figures, table
from ops.broker import NoBroker, find

Prepare = Callable[[Bench, Path], Awaitable[tuple[Mapping[str, Variant], Sequence[Goal]]]]
BENCHMARKS: Mapping[str, Prepare] = {
    "publish": publish.prepare,
    "ingress": ingress.prepare,
    "concurrency": concurrency.prepare,
    "overload": overload.prepare,
    "hop": hop.prepare,
    "pipeline": pipeline.prepare,
    "singles": pipeline.prepare_singles,
    "latency": latency.prepare,
    "fetch": fetch.prepare,
    "drain": drain.prepare,
    "scale": scale.prepare,
    "reconcile": reconcile.prepare,
    "memory": memory.prepare,
}
"""Each gets ready, in a directory of its own, what its variants need."""
ONCE = ("concurrency", "overload", "singles", "drain")
"""What is looked at and has no goal needs no more than one round."""


def tell(line: str) -> None:
    """Progress, beside the tables."""
    print(line, file=sys.stderr, flush=True)


async def run(names: list[str], only: list[str], rounds: int, output: Path) -> bool:
    """All of them, on one broker → whether every goal that must be met is; `only` some variants, else all."""
    met = True
    with find(tell, name="bench") as broker:
        for name in names:
            with broker.vhost("bench") as vhost, tempfile.TemporaryDirectory() as directory:
                async with bench(vhost.url) as made:
                    variants, goals = await BENCHMARKS[name](made, Path(directory))
                    outcome = await take_turns(name, chosen(variants, only), goals, 1 if name in ONCE else rounds, tell)
            print(table(outcome), flush=True)
            (output / f"{name}.json").write_bytes(figures(outcome))
            met = met and all(map(outcome.is_met, outcome.goals))
    return met


def chosen(variants: Mapping[str, Variant], only: list[str]) -> Mapping[str, Variant]:
    """Those variants, by the beginnings of their names; all when none is named."""
    return {name: one for name, one in variants.items() if not only or name.startswith(tuple(only))}


def main() -> int:
    """Exit code 1: a goal is missed; 2: it cannot be measured here."""
    parser = argparse.ArgumentParser("benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all of them by default")
    parser.add_argument("--rounds", type=int, default=3, help="how often each variant has its turn (3)")
    parser.add_argument("--only", nargs="+", default=[], metavar="VARIANT", help="these variants, by their beginnings")
    parser.add_argument("--output", type=Path, default=Path(".work/bench"), help="where the figures go (.work/bench)")
    given = parser.parse_args()
    if unknown := set(given.names) - set(BENCHMARKS):
        parser.error(f"there is no {', '.join(sorted(unknown))}: there are {', '.join(BENCHMARKS)}")
    if not (PEERS / "python").exists():
        parser.error("the peers are not installed: make bench does that")
    given.output.mkdir(parents=True, exist_ok=True)
    try:
        return 0 if asyncio.run(run(given.names or list(BENCHMARKS), given.only, given.rounds, given.output)) else 1
    except (NoBroker, Failed) as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
