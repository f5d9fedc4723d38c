"""A Docker engine for tests: the one that answers, else a private one that is started here and ends with them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types

from ops.broker.broker import NotHere, Say
from ops.broker.install import install
from ops.children import die_with_parent
from tests.compose.command import Failed, run
from tests.compose.network import put_back

WORK = Path(__file__).resolve().parents[2] / ".work" / "compose"
"""What is kept between runs: images of a private engine, and the logs of runs that failed."""

_ANSWERS = 10.0  # seconds that an engine has to say its version
_STARTS = 60.0
_PACKAGES = ("docker.io", "iptables")


class NoEngine(Exception):
    """No engine can be had; the text says why, and what to do."""


class Way(StrEnum):
    """How an engine is had."""

    THERE = "a Docker engine answers"
    START = "Docker is installed and does not run: a private engine is started for the tests"
    INSTALL = "there is no Docker: it is installed with apt-get, and a private engine is started for the tests"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What decides on the way."""

    answers: bool
    """The engine of `DOCKER_HOST`, or of Docker's own default, says its version."""
    docker_host: str
    """Empty when nobody has named an engine."""
    foreign: bool
    """An engine runs here all the same."""
    linux: bool
    root: bool
    installed: bool
    apt: bool


@dataclass(frozen=True)
class Engine:
    """An engine that answers; `environment` leads docker and Compose to it."""

    story: str
    environment: dict[str, str]

    def docker(self, *arguments: str, timeout: float = 60.0) -> str:
        """What docker printed.

        Raises:
            Failed: it failed, or did not end within `timeout` seconds.
        """
        return run(["docker", *arguments], self.environment, timeout)


def way(machine: Machine) -> Way:
    """Ours is never started beside another engine: both would write the same network rules.

    Raises:
        NoEngine: there is none, and none can be started.
    """
    if machine.answers:
        return Way.THERE
    if machine.docker_host:
        raise NoEngine("the engine that DOCKER_HOST names does not answer: start it, or unset DOCKER_HOST")
    if machine.foreign:
        raise NoEngine("a Docker engine runs, but does not answer here: set DOCKER_HOST to its socket")
    if not (machine.linux and machine.root):
        raise NoEngine("no Docker engine answers: start one (it is started here only on Linux, as root)")
    if machine.installed:
        return Way.START
    if machine.apt:
        return Way.INSTALL
    raise NoEngine("there is no Docker, and no apt-get to install it with")


def look() -> Machine:
    """This machine, as it is."""
    return Machine(
        answers=_answers({}),
        docker_host=os.environ.get("DOCKER_HOST", ""),
        foreign=any(process.info["name"] == "dockerd" for process in psutil.process_iter(["name"])),
        linux=sys.platform.startswith("linux"),
        root=os.geteuid() == 0,
        installed=all(shutil.which(name) for name in ("docker", "dockerd", "iptables")),
        apt=shutil.which("apt-get") is not None,
    )


@contextlib.contextmanager
def engine(say: Say) -> Iterator[Engine]:
    """An engine for the time of the block.

    Raises:
        NoEngine: none can be had.
    """
    found = way(look())
    say(f"{found.value}.")
    if found is Way.THERE:
        yield Engine(found.value, {})
        return
    if found is Way.INSTALL:
        _install(say)
    with put_back(say), _private() as environment:
        yield Engine("a private Docker engine", environment)


def _install(say: Say) -> None:
    # Later releases of Debian ship the client apart from the engine.
    client = () if shutil.which("docker") else ("docker-cli",)
    try:
        for package in _PACKAGES:
            install(package, os.environ, say)
        if not shutil.which("docker"):
            for package in client:
                install(package, os.environ, say)
    except NotHere as error:
        raise NoEngine(f"Docker cannot be installed: {error}") from error


@contextlib.contextmanager
def _private() -> Iterator[dict[str, str]]:
    """An engine with socket, state and images of its own. Its images stay for the next run, under `WORK`."""
    data = WORK / "engine"
    data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gateway-engine-") as place, (WORK / "dockerd.log").open("wb") as log:
        host = f"unix://{place}/docker.sock"
        process = subprocess.Popen(
            [
                *("dockerd", "-H", host, "--data-root", str(data)),
                *("--exec-root", f"{place}/exec", "--pidfile", f"{place}/docker.pid"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent(),  # noqa: PLW1509  # it takes no lock between fork and exec
            start_new_session=True,  # Ctrl-C is for the tests, which take everything down first
        )
        try:
            _wait(process, {"DOCKER_HOST": host})
            yield {"DOCKER_HOST": host}
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], environment: dict[str, str]) -> None:
    deadline = time.monotonic() + _STARTS
    while not _answers(environment):
        if process.poll() is not None or time.monotonic() > deadline:
            last = (WORK / "dockerd.log").read_text(errors="replace").strip().splitlines()[-3:]
            raise NoEngine(f"a private Docker engine does not start (log: {WORK}/dockerd.log): {' / '.join(last)}")
        time.sleep(0.2)


def _answers(environment: dict[str, str]) -> bool:
    try:
        return bool(run(["docker", "version", "--format", "{{.Server.Version}}"], environment, _ANSWERS))
    except Failed:
        return False
