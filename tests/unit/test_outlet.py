"""T-LOGPIPE. Lines into a pipe: whole, or lost and counted; nobody waits for long."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.outlet import PATIENCE_SECONDS, Outlet

LINE = "x" * 1_000


@pytest.fixture
def pipe() -> Iterator[tuple[Outlet, int]]:
    """What writes, and where it can be read."""
    reading, writing = os.pipe()
    yield Outlet(writing), reading
    for descriptor in (reading, writing):
        os.close(descriptor)


def fill(outlet: Outlet) -> int:
    """Until a line is lost → how many were written."""
    written = 0
    while outlet.write(LINE):
        written += 1
    return written


def take(reading: int, size: int) -> bytes:
    """So many bytes, which are there."""
    read = b""
    while len(read) < size:
        read += os.read(reading, size - len(read))
    return read


def test_a_full_pipe_costs_patience_once_and_is_written_to_again(pipe: tuple[Outlet, int]) -> None:
    outlet, reading = pipe
    written = fill(outlet)
    began = time.monotonic()
    assert not any(outlet.write(LINE) for _ in range(1_000))
    assert time.monotonic() - began < PATIENCE_SECONDS
    assert outlet.lost == 1_001
    assert take(reading, written * (len(LINE) + 1)) == f"{LINE}\n".encode() * written
    assert outlet.write("next")
    assert take(reading, 5) == b"next\n"


def test_a_line_that_was_begun_is_finished_first(pipe: tuple[Outlet, int]) -> None:
    outlet, reading = pipe
    long = "y" * 2**20
    assert outlet.write(long), "begun"
    assert not outlet.write(LINE)
    read = b""
    while len(read) < len(long):
        read += os.read(reading, 2**16)
        outlet.write("z")
    assert read.partition(b"\n")[0] == long.encode()


def test_a_reader_that_is_a_moment_late_misses_nothing(pipe: tuple[Outlet, int]) -> None:
    outlet, reading = pipe
    size, read = 2_000 * (len(LINE) + 1), 0

    def read_all() -> None:
        nonlocal read
        while read < size:
            read += len(os.read(reading, 2**12))

    late = threading.Timer(PATIENCE_SECONDS / 4, read_all)
    late.start()
    assert all(outlet.write(LINE) for _ in range(2_000))
    late.join()


def test_what_the_system_refuses_is_lost_and_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    outlet = Outlet(writing)
    assert not outlet.write(LINE)
    os.close(writing)
    assert not outlet.write(LINE)
    assert outlet.lost == 2


def test_a_line_in_the_middle_of_a_line_is_lost_and_does_not_tear_it(
    pipe: tuple[Outlet, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a finaliser's, which runs between any two steps."""
    outlet, reading = pipe
    put = os.write
    said: list[bool] = []

    def write(descriptor: int, data: bytes) -> int:
        if not said:
            said.append(outlet.write("inner"))
        return put(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    long = "y" * 10_000
    assert outlet.write(long)
    assert said == [False]
    assert outlet.lost == 1
    assert outlet.write("next")
    assert take(reading, 10_006) == f"{long}\nnext\n".encode()


def test_a_line_in_a_file_is_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes append to it."""
    put = os.write
    pieces: list[int] = []

    def write(descriptor: int, data: bytes) -> int:
        pieces.append(len(data))
        return put(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    with (tmp_path / "log").open("ab") as file:
        assert Outlet(file.fileno()).write("y" * 10_000)
    assert pieces == [10_001]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_a_full_disk_is_no_error() -> None:
    with open("/dev/full", "wb") as full:
        assert not Outlet(full.fileno()).write(LINE)
