"""Lines for whoever reads them: written to a file descriptor, or given up and counted. Nobody waits for a reader for
longer than a second, nor in the long run for more than a tenth of the time."""

from __future__ import annotations

import os
import select
import stat
import sys
import threading

from common.clock import monotonic_seconds

PATIENCE_SECONDS = 1.0
"""How long a line may wait for room: a reader may be a moment late, and a process that logs a lot is not slower."""
PATIENCE_SHARE = 0.1
"""Of the time, no more is spent on that in the long run: a reader that is slow for ever slows nobody down for ever."""

LEAST_SECONDS = 0.01
"""Shorter waits cost more than they are: the system rounds them up."""


class Outlet:
    """A pipe that is full makes whoever writes stand still, event loop and all, until somebody reads; this does not.

    A line that finds no room in time, or that the system refuses (the reader is gone, the disk is full), is `lost`; so
    is what a finaliser says in the middle of another line. One that was begun is finished before the next. Any thread
    may write. A descriptor that others write to at the same moment may still block: for what comes between looking and
    writing. In a file, which several processes may append to, each line is in one piece.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._piece = sys.maxsize if _is_file(descriptor) else select.PIPE_BUF
        self._turn = threading.RLock()  # a finaliser may log in the middle of a line: it must not wait for itself
        self._is_writing = False
        self._rest = b""
        self._patience = PATIENCE_SECONDS
        self._looked = monotonic_seconds()
        self.lost = 0
        """Lines, so far."""

    def write(self, line: str) -> bool:
        """Whether it was written."""
        with self._turn:
            is_written = not self._is_writing and self._write(line.encode(errors="backslashreplace") + b"\n")
            self.lost += not is_written
            return is_written

    def _write(self, data: bytes) -> bool:
        self._is_writing = True
        try:
            self._rest = self._put(self._rest)
            rest = data if self._rest else self._put(data)
            if len(rest) == len(data):
                return False
            self._rest = rest
            return True
        finally:
            self._is_writing = False

    def _put(self, data: bytes) -> bytes:
        """Write → what is left."""
        try:
            while data and self._has_room():
                data = data[os.write(self._descriptor, data[: self._piece]) :]
        except OSError:
            return data
        return data

    def _has_room(self) -> bool:
        """Whether `PIPE_BUF` bytes can be written without blocking."""
        if self._poll.poll(0):
            return True
        now = monotonic_seconds()
        self._patience = min(PATIENCE_SECONDS, self._patience + (now - self._looked) * PATIENCE_SHARE)
        self._looked = now
        if self._patience < LEAST_SECONDS:
            return False
        found = self._poll.poll(self._patience * 1000)
        self._looked = monotonic_seconds()
        self._patience = max(0.0, self._patience - (self._looked - now))
        return bool(found)


def _is_file(descriptor: int) -> bool:
    """Where poll says that there is room, whatever is written."""
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False
