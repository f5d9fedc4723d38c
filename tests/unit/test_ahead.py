"""`ops.prove.ahead`: a process whose clock is put while it runs."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from ops.prove.clock import AHEAD_FILE, HostClock
from tests.waiting import within

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, time
from datetime import UTC, datetime
from common import clock

if __name__ == "__main__":
    for wanted in sys.stdin:
        while round((clock.utc_now() - datetime.now(UTC)).total_seconds() / 60) != int(wanted):
            time.sleep(0.01)
        print(round((clock.wall_seconds() - time.time()) / 60), *sys.argv[1:], flush=True)
        print(round(clock.monotonic_seconds() - time.monotonic()), flush=True)
"""
"""For each number of minutes it says what it shows, once it shows that: the file is looked at now and then."""


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
        process.stdin.write(f"{ahead}\n".encode())
        async with within(10):
            shown, measured = await process.stdout.readline(), await process.stdout.readline()
        assert (shown.decode(), measured) == (f"{ahead} an argument\n", b"0\n")
    process.stdin.close()
    assert await process.wait() == 0
