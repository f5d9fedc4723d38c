"""Installs the distribution's RabbitMQ, when we may, without ever starting its service."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ops.broker.broker import NotHere, Say

_POLICY = Path("/usr/sbin/policy-rc.d")
_MARK = "# Temporary: keeps packages from starting services while they are installed. May be deleted."
_LIMIT = 600.0  # seconds for one call of apt or brew


def install(package: str, environment: Mapping[str, str], say: Say) -> None:
    """Installs `package` with apt-get (as root, or by sudo that asks nothing) or brew. Raises NotHere with what to do.

    We may when we are root or `ALLOW_INSTALL=1`.
    """
    root = os.geteuid() == 0
    allowed = environment.get("ALLOW_INSTALL") == "1"
    if shutil.which("apt-get"):
        by_hand = f"sudo apt-get install {package}"
        if root:
            _apt(package, [], say)
        elif allowed and shutil.which("sudo"):
            _apt(package, ["sudo", "-n"], say)
        else:
            raise NotHere(f"{package} is not installed: {_or_allow(by_hand)}")
    elif shutil.which("brew"):
        name = package.removesuffix("-server")
        if not allowed or root:  # brew refuses to run as root
            raise NotHere(f"{package} is not installed: {_or_allow(f'brew install {name}')}")
        say(f"Installing {name} with brew …")
        _run(["brew", "install", name], "brew", {"HOMEBREW_NO_AUTO_UPDATE": "1", "HOMEBREW_NO_ENV_HINTS": "1"})
    else:
        raise NotHere(f"{package} is not installed, and there is neither apt-get nor brew to get it with")


def _or_allow(by_hand: str) -> str:
    return f"install it ({by_hand}), or set ALLOW_INSTALL=1 to have that done"


def _apt(package: str, sudo: list[str], say: Say) -> None:
    say(f"Installing {package} with apt-get …")
    apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
    get = [*apt, "install", "-y", "--no-install-recommends", package]
    with _one_at_a_time(), _no_services(sudo):
        try:
            _run(get, "apt-get")
        except NotHere:
            say("Asking apt-get for newer package lists …")
            _run([*apt, "update"], "apt-get update")
            _run(get, "apt-get")


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Of our processes on this machine: what the first puts back the second would still need."""
    folder, deadline = os.open(_POLICY.parent, os.O_RDONLY), time.monotonic() + _LIMIT
    try:
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise NotHere("another installation does not end") from None
                time.sleep(0.5)
        yield
    finally:
        os.close(folder)


@contextlib.contextmanager
def _no_services(sudo: list[str]) -> Iterator[None]:
    """While inside, Debian's packages start no service; what the machine says about that itself is put back after.

    A server that runs already is not touched.
    """
    before = _policy()
    if _refuses():
        yield  # the machine has it so already (containers mostly do)
        return
    _write(sudo, f"#!/bin/sh\n{_MARK}\nexit 101\n".encode(), 0o755)
    try:
        yield
    finally:
        if before is None:
            _run([*sudo, "rm", "-f", str(_POLICY)], "rm")
        else:
            _write(sudo, *before)


def _policy() -> tuple[bytes, int] | None:
    """The machine's own policy and its mode; None when it has none, or one that we left behind when we were killed."""
    try:
        content = _POLICY.read_bytes()
    except OSError:
        return None
    return None if _MARK.encode() in content else (content, _POLICY.stat().st_mode & 0o777)


def _refuses() -> bool:
    """Whether the machine's own policy says no to starting a broker."""
    if _policy() is None:
        return False
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        asked = [str(_POLICY), "rabbitmq-server", "start"]
        return (
            subprocess.run(asked, capture_output=True, stdin=subprocess.DEVNULL, timeout=10, check=False).returncode
            == 101
        )
    return False


def _write(sudo: list[str], content: bytes, mode: int) -> None:
    _run([*sudo, "tee", str(_POLICY)], "tee", stdin=content)
    _run([*sudo, "chmod", f"{mode:o}", str(_POLICY)], "chmod")


def _run(command: list[str], name: str, more: Mapping[str, str] | None = None, stdin: bytes = b"") -> None:
    try:
        done = subprocess.run(
            command, env={**os.environ, **(more or {})}, input=stdin, capture_output=True, timeout=_LIMIT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NotHere(f"{name} did not end within {_LIMIT:g} s") from error
    except OSError as error:
        raise NotHere(f"{name} cannot be run") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise NotHere(f"{name} failed: {said[-1][:200] if said else f'exit {done.returncode}'}")
