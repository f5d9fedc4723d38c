"""`python -m tests.skewed SECONDS ROLE`: the role as it always runs, on a host whose clock is so far ahead."""

from __future__ import annotations

import runpy
import sys
import time
from datetime import datetime, timedelta

from common import clock
from ops.stack import ROLES


def main(ahead: float, role: str) -> None:
    """Put all clocks forward (back: a negative number) but those that only measure, then run the role."""
    seconds, nanoseconds, now = time.time, time.time_ns, clock.utc_now

    def utc_now() -> datetime:
        return now() + timedelta(seconds=ahead)

    time.time = lambda: seconds() + ahead
    time.time_ns = lambda: nanoseconds() + int(ahead * 1e9)
    clock.utc_now = utc_now
    module, *arguments = ROLES[role]
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2])
