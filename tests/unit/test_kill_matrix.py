"""Every point of `tests.kill.points`, in each mode, on each database, is a test that pytest collects."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tests.acceptance.leads import DATABASES
from tests.kill.entry import MODES
from tests.kill.points import POINTS

ROOT = Path(__file__).parents[2]
EXCLUDED: Mapping[str, str] = {}
"""Cells that nobody plays, and why."""
_CELL = re.compile(rf"\[((?:{'|'.join(DATABASES)}) (?:{'|'.join(MODES)}) [\w.]+)\]$", re.MULTILINE)


def test_every_point_is_played_in_each_mode_on_each_database() -> None:
    command = ["-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests/acceptance"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    played = Counter(_CELL.findall(done.stdout))
    matrix = {f"{database} {mode} {point}" for database in DATABASES for mode in MODES for point in POINTS}
    assert EXCLUDED.keys() <= matrix
    assert played == Counter(matrix - EXCLUDED.keys())
