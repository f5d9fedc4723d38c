"""Throughput and latency of the ingress against how many connections send at once: for plots, without goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.broker import Bench
from benchmarks.ingress import Running, floor, gateway, measure
from benchmarks.measure import Goal, Sample, Variant

CONNECTIONS = (1, 4, 16, 64, 256)


async def prepare(bench: Bench, directory: Path) -> tuple[Mapping[str, Variant], Sequence[Goal]]:
    """The gateway and the floor, each with so many."""

    def of(running: Running, connections: int) -> Variant:
        async def run() -> Sample:
            async with running(bench, directory) as service:
                return await measure(bench, service, connections)

        return run

    both = {"gateway": gateway, "floor": floor}
    return {f"{name}, {number}": of(one, number) for number in CONNECTIONS for name, one in both.items()}, ()
