"""More webhooks at once than the ingress lets wait for the broker: how much it takes, and how soon it refuses the rest.

Whoever is refused comes again after a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.broker import Bench
from benchmarks.ingress import CONNECTIONS, gateway, measure
from benchmarks.measure import Goal, Sample, Variant
from ingress.webhook.deposit import IN_FLIGHT

BELOW, OVER = IN_FLIGHT // 2, 2 * IN_FLIGHT


async def prepare(bench: Bench, directory: Path) -> tuple[Mapping[str, Variant], Sequence[Goal]]:
    """The gateway, below its limit and above; what counts is what was accepted."""

    def of(connections: int) -> Variant:
        async def run() -> Sample:
            async with gateway(bench, directory) as service:
                return await measure(bench, service, connections, may_refuse=connections > IN_FLIGHT)

        return run

    return {f"{number} at once": of(number) for number in (CONNECTIONS, BELOW, OVER)}, ()
