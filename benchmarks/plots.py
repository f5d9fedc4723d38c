"""Plots of what the benchmarks have kept: `.venv-peers/bin/python -m benchmarks.plots [FIGURES] [TO]`.

FIGURES is the directory of the JSON files (.work/bench), TO where the PNGs go (docs/performance). What was not measured
is not drawn.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt  # type: ignore[import-not-found, unused-ignore]  # in the peers' environment

Samples = Mapping[str, Sequence[Mapping[str, float]]]
Lines = dict[str, dict[int, Sequence[Mapping[str, float]]]]
COLOURS = {"gateway": "tab:blue", "floor": "tab:gray"}


def median(samples: Sequence[Mapping[str, float]], name: str) -> float:
    """Over the rounds."""
    return statistics.median(one[name] for one in samples)


def throughput(axes: Any, samples: Samples) -> None:
    """Against how many connections send at once."""
    for name, points in _by_connections(samples).items():
        axes.plot(list(points), [median(one, "perSecond") for one in points.values()], "o-", color=COLOURS[name])
    axes.legend(_by_connections(samples))
    axes.set(xscale="log", xlabel="connections", ylabel="webhooks per second", ylim=(0, None))


def latency(axes: Any, samples: Samples) -> None:
    """Against the load: as more connections send, both grow."""
    for name, points in _by_connections(samples).items():
        rates = [median(one, "perSecond") for one in points.values()]
        for figure, line in (("median_ms", "o-"), ("p99_ms", "o--")):
            label = f"{name}, {'median' if figure == 'median_ms' else '99 of 100'}"
            axes.plot(rates, [median(one, figure) for one in points.values()], line, color=COLOURS[name], label=label)
    axes.legend()
    axes.set(yscale="log", xlabel="webhooks per second", ylabel="ms until the answer", xlim=(0, None))


def stored(axes: Any, samples: Samples) -> None:
    """Cost of a changed listing against how many are stored; variants are `DATABASE, NUMBER stored`."""
    for database, points in _by(samples, lambda name: name.partition(", ")[::2]).items():
        axes.plot(list(points), [median(one, "cpuMicros") for one in points.values()], "o-", label=database)
    axes.legend()
    axes.set(xscale="log", xlabel="listings stored", ylabel="CPU-µs per changed listing", ylim=(0, None))


def processes(axes: Any, samples: Samples) -> None:
    """Throughput against fetch processes; variants are `N processes[, DATABASE]`, their samples per process."""
    for database, points in _by(samples, lambda name: name.partition(", ")[::-2]).items():
        rates = [number * median(one, "perSecond") for number, one in points.items()]
        (line,) = axes.plot(list(points), rates, "o-", label=database or "PostgreSQL")
        axes.plot(list(points), [number * rates[0] for number in points], ":", color=line.get_color())
    axes.legend(title="dotted: as many times one")
    axes.set(xlabel="fetch processes", ylabel="answers per second", xlim=(0, None), ylim=(0, None))


def _by_connections(samples: Samples) -> Lines:
    return _by(samples, lambda name: name.partition(", ")[::2])


def _by(samples: Samples, split: Callable[[str], Sequence[str]]) -> Lines:
    """Variants as lines, each with its points by the number that their names hold; `split` gives line and point."""
    found: Lines = {}
    for name, rounds in samples.items():
        line, point = split(name)
        number = int("".join(filter(str.isdigit, point)))
        found.setdefault(line, {})[number] = rounds
    return {line: dict(sorted(points.items())) for line, points in found.items()}


PLOTS: Mapping[str, tuple[str, Callable[[Any, Samples], None]]] = {
    "throughput": ("concurrency", throughput),
    "latency": ("concurrency", latency),
    "stored": ("memory", stored),
    "processes": ("scale", processes),
}


def main(figures: Path = Path(".work/bench"), to: Path = Path("docs/performance")) -> None:
    """Draw what there is."""
    to.mkdir(parents=True, exist_ok=True)
    for name, (benchmark, draw) in PLOTS.items():
        file = figures / f"{benchmark}.json"
        if not file.exists():
            continue
        figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
        draw(axes, json.loads(file.read_text())["samples"])
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(to / f"{name}.png", dpi=110)
        plt.close(figure)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
