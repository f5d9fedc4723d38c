"""`python -m tests.sabotaged DIRECTORY`: `gateway prove` of a gateway that loses things (`tests.saboteur`).

It does not wait for long until they come back, and when everything is mended, prices change that nothing else asks for.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ops import ledger
from ops.demo import story
from ops.demo.stage import Stage
from ops.prove import concluding, run
from tests.saboteur import MARK

RATES, ROUNDS = 16, 3
"""Not a multiple of `EVERY`: others are lost in each round."""


async def begin(stage: Stage) -> None:
    """The first burst comes through, as the story waits for it."""
    await _first_burst(stage)
    stage.logs.with_name(MARK).touch()


async def change_prices(stage: Stage) -> None:
    """None of them is waited for."""
    rates = [url for url in (await stage.sandbox.world()).items if "/rates/" in url][:RATES]
    for _ in range(ROUNDS):
        for url in rates:
            await stage.sandbox.change("price", url)
        await stage.until(lambda: concluding.is_idle(stage), "nothing is due any more", concluding.MEND_SECONDS)


_first_burst = story.first_burst

if __name__ == "__main__":
    run.THROUGH = "tests.saboteur"
    story.first_burst, story.change_price = begin, change_prices
    concluding.SETTLE_SECONDS = 8.0
    ledger.REDELIVERED_SECONDS = 3.0
    sys.exit(run.prove(Path(sys.argv[1]), minutes=0.5, seed=5))
