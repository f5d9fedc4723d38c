"""`gateway demo` as a newcomer runs it: its story, its ledger, its exit codes, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped, unused-ignore]  # it ships no types
import pytest

from ops.broker import Vhost
from ops.stack import ROLES
from tests.waiting import until, within


def demo_command(work: Path) -> list[str]:
    return [sys.executable, "-m", "ops", "demo", "--work", str(work)]


@pytest.fixture
def environment(vhost: Vhost, tmp_path: Path) -> dict[str, str]:
    """A newcomer's, with a broker of the test's own: its virtual host is named, so the demo makes none."""
    return {**os.environ, "AMQP_URL": vhost.url, "HOME": str(tmp_path), "NO_COLOR": "1"}


def test_the_story_ends_with_a_ledger_that_adds_up(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        demo_command(tmp_path / "work"), env=environment, capture_output=True, text=True, timeout=110, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout, "no colours where no terminal is"
    told = done.stdout
    for part in ("siteUri", "authTokenUri", "signs in and consents", "Connected to Syncaroo", "kill -9"):
        assert part in told
    ledger = dict(re.findall(r"^(\w+): (\d+)$", told, re.MULTILINE))
    assert {ledger[name] for name in ("lost", "gaps", "stale", "parked", "violations")} == {"0"}
    assert all(int(ledger[name]) > 50 for name in ("webhooks_accepted", "api_calls", "events"))
    assert "duplicates" in ledger


async def test_ctrl_c_in_the_middle_ends_everything(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    with log.open("wb") as out:
        command = demo_command(tmp_path / "work")
        demo = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            # Who runs the tests in the background has it ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        await until(lambda: "the platform creates a user" in log.read_text(), 60, "the stage to be set")
        children = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(signal.SIGINT)
        async with within(40):
            await demo.wait()
    finally:
        if demo.returncode is None:
            demo.kill()
            await demo.wait()

    assert demo.returncode == 130, log.read_text()
    assert len(children) >= len(ROLES) - 1  # all but the role of many workers in one
    assert not [child for child in children if child.is_running()]
    assert "Traceback" not in log.read_text()
