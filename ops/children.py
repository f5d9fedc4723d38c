"""What every child process of ours needs: a free loopback port and an end that comes no later than its parent's."""

import ctypes
import fcntl
import os
import random
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_FIRST, _BELOW = 20_000, 32_768
_TAKEN: set[int] = set()
_DICE = random.SystemRandom()  # a test that seeds `random` must not get the ports of the one before


def die_with_parent() -> Callable[[], None] | None:
    """What to pass as `preexec_fn` so that the kernel kills the child when its parent ends, even by SIGKILL.

    Linux only, elsewhere None. The kernel watches the *thread* that started the child: start children from a thread
    that lives as long as they should.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork, where a lock could be held
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def free_port() -> int:
    """A loopback TCP port that nobody listens on and that stays ours over a restart, as long as this process lives.

    It lies below the range the kernel hands to outgoing connections: there, a client that keeps knocking on a port
    without a listener ends up connected to itself, and the restarted server finds its port taken. It is given once:
    its server starts to listen only seconds later, and may be down for a while.

    Raises:
        OSError: no port is free.
    """
    upper = _ephemeral_start()
    lower = _FIRST if upper > _FIRST + 1000 else 1024
    for _ in range(200):
        port = _DICE.randrange(lower, upper)
        if _is_free(port) and _take(port):
            return port
    raise OSError(f"no free port between {lower} and {upper}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _take(port: int) -> bool:
    """False when it has been given, here or by another process of this user: a port is a locked byte of one file."""
    if port in _TAKEN:
        return False
    try:
        fcntl.lockf(_ports_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):
        return False
    _TAKEN.add(port)
    return True


@cache
def _ports_file() -> int:
    """Open until the process ends: so long its locks last."""
    path = Path(tempfile.gettempdir()) / f"syncaroo-gateway-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def free_ports(count: int) -> list[int]:
    """`count` different free ports."""
    return [free_port() for _ in range(count)]


def _ephemeral_start() -> int:
    try:
        start = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _BELOW
    return min(max(start, 2048), _BELOW)
