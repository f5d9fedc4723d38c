"""`python -m tests.kill.entry ROLE`: the role as it always runs, but something happens to it at given points.

KILL_POINTS   names of `tests.kill.points`, separated by commas; each acts once
KILL_MODE     one of `MODES`: `kill` (SIGKILL), `stop` (SIGSTOP) or `raise` (an error nobody expects)
KILL_NTH      at the how-manieth time a point is reached; where it is not set, the point's own

Right before it acts, a point leaves a marker where the process runs: it proves that the point was reached. A process
that stood still and goes on adds `WENT_ON` to it.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ops.stack import ROLES
from tests.kill.points import POINTS

MODES = ("kill", "stop", "raise")
WENT_ON = "went on"


class Ordered(Exception):
    """What the mode `raise` raises: it says at which point."""


@dataclass
class Trigger:
    """Counts how often its point is reached, and acts at the n-th time."""

    point: str
    mode: str
    nth: int
    marker: Path
    _reached: int = field(default=0, init=False)

    def __call__(self) -> None:
        self._reached += 1
        if self._reached != self.nth:
            return
        self.marker.write_text("reached\n")
        match self.mode:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
                self.marker.write_text(f"reached\n{WENT_ON}\n")
            case "raise":
                raise Ordered(self.point)


def marker(directory: Path, mode: str, point: str) -> Path:
    """The file that a process which runs in `directory` leaves at the point."""
    return directory / f"{mode}.{point}.reached"


def orders(mode: str, points: Sequence[str], nth: int | None = None) -> dict[str, str]:
    """The settings that order it."""
    settings = {"KILL_MODE": mode, "KILL_POINTS": ",".join(points)}
    return settings if nth is None else {**settings, "KILL_NTH": str(nth)}


def command(role: str) -> list[str]:
    """What Python runs."""
    return ["-m", "tests.kill.entry", role]


def main(role: str) -> None:
    """Wrap the seams, then run the role as `python -m` does."""
    module, *arguments = ROLES[role]
    mode, nth = os.environ["KILL_MODE"], os.environ.get("KILL_NTH")
    for name in os.environ["KILL_POINTS"].split(","):
        point = POINTS[name]
        point.install(Trigger(name, mode, int(nth or point.nth), marker(Path.cwd(), mode, name)))
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1])
