"""The trigger of `tests.kill.entry`: at the n-th time the process is killed, stopped or surprised."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kill.entry import WENT_ON, Ordered, Trigger
from tests.kill.points import POINTS, STEPS

ROOT = str(Path(__file__).parents[2])
_REACHER = """
import sys
from pathlib import Path
from tests.kill.entry import Trigger
trigger = Trigger("a.point", sys.argv[1], 2, Path(sys.argv[2]))
for number in (1, 2, 3):
    print(number, flush=True)
    trigger()
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "reached"


@pytest.fixture
def stopped(marker: Path) -> Iterator[subprocess.Popen[str]]:
    process = _start(marker, "stop")
    yield process
    process.kill()
    process.wait()


def test_it_kills_at_the_nth_time(marker: Path) -> None:
    process = _start(marker, "kill")
    said, _ = process.communicate(timeout=20)
    assert (process.returncode, said.split()) == (-signal.SIGKILL, ["1", "2"])
    assert marker.exists()


def test_it_stops_once_and_can_be_resumed(stopped: subprocess.Popen[str], marker: Path) -> None:
    assert stopped.stdout is not None
    assert [stopped.stdout.readline().strip() for _ in range(2)] == ["1", "2"]
    _, status = os.waitpid(stopped.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert marker.exists()
    assert WENT_ON not in marker.read_text()
    stopped.send_signal(signal.SIGCONT)
    said, _ = stopped.communicate(timeout=20)
    assert (stopped.returncode, said.split()) == (0, ["3"])
    assert WENT_ON in marker.read_text()


def test_it_raises_once(marker: Path) -> None:
    trigger = Trigger("a.point", "raise", 2, marker)
    trigger()
    assert not marker.exists()
    with pytest.raises(Ordered, match=r"a\.point"):
        trigger()
    assert marker.exists()
    trigger()


def test_every_step_has_a_point() -> None:
    assert set(STEPS.values()) <= POINTS.keys()


def test_every_seam_is_there() -> None:
    """One that was renamed is found here, not after a minute. All are wrapped, in a process that is thrown away."""
    program = "from tests.kill.points import POINTS\nfor point in POINTS.values(): point.install(lambda: None)"
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": ROOT}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _start(marker: Path, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _REACHER, mode, str(marker)], env={"PYTHONPATH": ROOT}, stdout=subprocess.PIPE, text=True
    )
