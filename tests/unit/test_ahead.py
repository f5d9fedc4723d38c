"""`ops.prove.ahead`: a process whose clock is put while it runs."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from ops.prove.clock import AHEAD_FILE, HostClock

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, time
from datetime import UTC, datetime
from common import clock

if __name__ == "__main__":
    for _ in sys.stdin:
        off = clock.utc_now() - datetime.now(UTC)
        wall = clock.wall_seconds() - time.time()
        print(round(off.total_seconds() / 60), round(wall / 60), *sys.argv[1:], flush=True)
        print(round(clock.monotonic_seconds() - time.monotonic()), flush=True)
        time.sleep(0.3)
"""


async def test_the_gateways_clock_is_put_and_what_measures_goes_on(tmp_path: Path) -> None:
    (tmp_path / "shows_the_time.py").write_text(PROGRAM)
    clock = HostClock(tmp_path / "ahead")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.prove.ahead", "shows_the_time", "an argument"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **clock.settings, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
    )
    assert process.stdin
    assert process.stdout
    assert clock.settings.keys() == {AHEAD_FILE}
    for ahead in (0, 60, -60, 0):
        await clock.put(60 * ahead)
        process.stdin.write(b"\n")
        shown, measured = await process.stdout.readline(), await process.stdout.readline()
        assert (shown.decode(), measured) == (f"{ahead} {ahead} an argument\n", b"0\n")
    process.stdin.close()
    assert await process.wait() == 0
