"""`python -m tests.kill.entry ROLE`: the role as it always runs, but it dies at one point.

KILL_POINT    a name of `tests.kill.points`
KILL_MODE     `kill` (SIGKILL, the default), `stop` (SIGSTOP) or `raise` (an error nobody expects), at the point
KILL_NTH      at the how-manieth time, from 1, which is the default; `raise` goes on raising
KILL_MARKER   a file, written right before: it proves that the point was reached
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ops.stack import ROLES
from tests.kill.points import POINTS


class Ordered(Exception):
    """What the mode `raise` raises."""


@dataclass
class Trigger:
    """Counts how often its point is reached, and acts at the n-th time."""

    mode: str
    nth: int
    marker: Path
    _reached: int = field(default=0, init=False)

    @classmethod
    def ordered_by(cls, environment: Mapping[str, str]) -> Trigger:
        """The trigger that these variables order."""
        mode, nth = environment.get("KILL_MODE", "kill"), environment.get("KILL_NTH", "1")
        return cls(mode, int(nth), Path(environment["KILL_MARKER"]))

    def __call__(self) -> None:
        self._reached += 1
        if self._reached < self.nth:
            return
        self.marker.write_text(f"{self._reached}\n")
        match self.mode:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop" if self._reached == self.nth:
                os.kill(os.getpid(), signal.SIGSTOP)
            case "raise":
                raise Ordered


def main(role: str) -> None:
    """Wrap the seam, then run the role as `python -m` does."""
    module, *arguments = ROLES[role]
    POINTS[os.environ["KILL_POINT"]].install(Trigger.ordered_by(os.environ))
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1])
