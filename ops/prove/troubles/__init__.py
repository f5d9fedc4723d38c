"""Each kind of trouble: it begins when its block begins, and is mended when that ends."""

from __future__ import annotations

from ops.prove.plan import Kind
from ops.prove.troubles import broker, clocks, network, processes, store, syncaroo
from ops.prove.troubles.scene import Happen


def happenings(*, postgresql: bool, wires: tuple[str, ...], clocks_to_put: tuple[str, ...]) -> dict[Kind, Happen]:
    """All kinds there are for such a gateway."""
    return {
        **processes.happenings(),
        **broker.happenings(),
        **store.happenings(postgresql=postgresql),
        **network.happenings(wires),
        **clocks.happenings(clocks_to_put),
        **syncaroo.happenings(),
    }
