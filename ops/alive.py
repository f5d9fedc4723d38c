"""`python -I -S ops/alive.py PORT [PATH]`: exit code 0 when `/healthz` there says 200, for docker-compose.yml.

An engine starts again what has ended, and leaves alone what hangs. So a process that has been well and then, for three
checks in a row, keeps its port and answers nothing is ended here. One that starts has not been well yet, one that stops
has let go of its port, and one that misses the broker or the database answers.

It imports little, as a dozen containers run it every few seconds: 0.03 s of a processor, where a library for HTTP takes
0.2 s to load.
"""

import os
import signal
import socket
import sys
import time
from contextlib import suppress

CONNECT_SECONDS, ANSWER_SECONDS = 2.0, 6.0
"""Together, with what comes after the third time, less than the `timeout` of the checks."""
TIMES = 3
DUMP_SECONDS = 0.5
MEMORY = "/tmp"  # noqa: S108  # the container's own, and empty when it starts
LINE = (
    '{{"pid":{pid},"what":"it answered none of {times} checks and is ended, to be started again",'
    '"event":"process.hung","level":"error","timestamp":"{now}"}}\n'
)


def main(port: int, path: str = "/healthz") -> int:
    """The exit code."""
    status, holder = asked(port, path), holder_of(port)
    known, silent = remembered(port)
    if status == b"200":
        remember(port, holder, 0)
        return 0
    if status is not None or holder != known:
        remember(port, known, 0)
    elif holder:
        remember(port, holder, silent + 1)
        if silent + 1 >= TIMES:
            end(int(holder.partition(" ")[0]))
    return 1


def asked(port: int, path: str) -> bytes | None:
    """The status that it answers; empty: it refuses, or breaks off; None: there is no answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), CONNECT_SECONDS) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            return b"".join(connection.recv(64).split(b" ")[1:2])
    except TimeoutError:
        return None
    except OSError:
        return b""


def holder_of(port: int) -> str:
    """The process that listens there, `PID STARTED`; empty: nobody that we may see, or this is not Linux."""
    try:
        sockets = {f"socket:[{inode}]" for inode in listening(port)}
        pids = os.listdir("/proc") if sockets else []
        pid = next((one for one in pids if one.isdigit() and holds(one, sockets)), None)
        return f"{pid} {read(f'/proc/{pid}/stat').rpartition(')')[2].split()[19]}" if pid else ""
    except OSError:
        return ""


def listening(port: int) -> list[str]:
    """The inodes of the sockets that listen there."""
    lines: list[list[str]] = []
    for name in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):  # without IPv6 there is no tcp6
            lines += [line.split() for line in read(f"/proc/net/{name}").splitlines()[1:]]
    return [one[9] for one in lines if one[3] == "0A" and int(one[1].rpartition(":")[2], 16) == port]


def holds(pid: str, sockets: set[str]) -> bool:
    """Whether the process has one of them open."""
    try:
        for file in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):  # closed meanwhile
                if os.readlink(f"/proc/{pid}/fd/{file}") in sockets:
                    return True
    except OSError:  # somebody else's, or gone
        pass
    return False


def remembered(port: int) -> tuple[str, int]:
    """Who was well, and how often there was no answer since."""
    try:
        known, _, silent = read(f"{MEMORY}/alive-{port}").rpartition(" ")
        return known, int(silent)
    except (OSError, ValueError):
        return "", 0


def remember(port: int, known: str, silent: int) -> None:
    """For the next check."""
    with suppress(OSError), open(f"{MEMORY}/alive-{port}", "w") as file:
        file.write(f"{known} {silent}")


def end(pid: int) -> None:
    """Say so in its log, have it write where its threads are (`common.process`), and end it."""
    with suppress(OSError):  # nobody reads it: perhaps that is why it hangs
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with open(os.open(f"/proc/{pid}/fd/1", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK), "w") as log:
            log.write(LINE.format(pid=pid, times=TIMES, now=now))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR2)
        time.sleep(DUMP_SECONDS)
        os.kill(pid, signal.SIGKILL)


def read(path: str) -> str:
    """A file of the kernel's, or ours."""
    with open(path) as file:
        return file.read()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
