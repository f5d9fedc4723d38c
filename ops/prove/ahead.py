"""`python -m ops.prove.ahead MODULE ARGUMENT…`: as `python -m MODULE`, but its clock can be put while it runs.

AHEAD_FILE says by how many seconds it is ahead of what it should show; what measures seconds is not touched.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from types import SimpleNamespace

from common import clock
from ops.prove.clock import AHEAD_FILE

LOOK_SECONDS = 0.2


class Ahead:
    """What the file says, looked at now and then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seconds = 0.0
        self._look_at = 0.0

    def __call__(self) -> float:
        if time.monotonic() >= self._look_at:
            self._seconds = float(self._path.read_text())
            self._look_at = time.monotonic() + LOOK_SECONDS
        return self._seconds


def put_clocks(ahead: Ahead) -> None:
    """`common.clock` is where the gateway looks at a clock."""

    def now(zone: tzinfo | None = None) -> datetime:
        return datetime.now(zone) + timedelta(seconds=ahead())

    given = SimpleNamespace(time=lambda: time.time() + ahead(), monotonic=time.monotonic)
    vars(clock).update(time=given, datetime=SimpleNamespace(now=now))


if __name__ == "__main__":
    put_clocks(Ahead(Path(os.environ[AHEAD_FILE])))
    module, *sys.argv[1:] = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
