"""T-HANG: the health check of docker-compose.yml against real processes: what hangs is ended, and nothing else is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from ops import alive
from ops.children import free_ports
from tests.waiting import until

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc, as in a container")

GATEWAY = """
import asyncio, sys, time
from aiohttp import web
from common.listen import Listener
from common.process import main

def stuck():
    time.sleep(600)

async def hang(request):
    asyncio.get_running_loop().call_soon(stuck)
    return web.Response()

async def release(request):
    asyncio.get_running_loop().call_soon(asyncio.create_task, listener.close())
    return web.Response()

async def answer(request):
    return web.Response(status=int(request.match_info["status"]))

async def run(stop):
    global listener
    app = web.Application()
    app.add_routes([web.get("/hang", hang), web.get("/release", release), web.get("/{status}", answer)])
    listener = Listener(app, "127.0.0.1", int(sys.argv[1]), "PORT")
    await listener.start()
    await stop.wait()

sys.exit(main("test", (), lambda: run))
"""
"""With what every process of ours has around it."""

STARTING = """
import socket, sys, time
held = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(600)
"""
"""Has its port, and does not answer yet."""

Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(alive, "MEMORY", str(tmp_path))
    monkeypatch.setattr(alive, "ANSWER_SECONDS", 1.0)
    (found,) = free_ports(1)
    return found


@pytest.fixture
def start(port: int) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(program: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(port)],
            env={"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def check(port: int, times: int = 1, path: str = "/200") -> list[int]:
    return [alive.main(port, path) for _ in range(times)]


def command(port: int, path: str) -> int:
    what = [sys.executable, "-I", "-S", str(ROOT / "ops" / "alive.py"), str(port), path]
    return subprocess.run(what, check=False, timeout=60).returncode


async def well(port: int) -> None:
    await until(lambda: check(port) == [0], 20, "it is well")


def ask(port: int, path: str) -> None:
    with suppress(OSError), urlopen(f"http://127.0.0.1:{port}{path}", timeout=1):
        pass


@LINUX
async def test_a_process_that_is_stopped_is_ended_at_the_third_check(start: Start, port: int) -> None:
    process = start(GATEWAY)
    await well(port)
    process.send_signal(signal.SIGSTOP)
    assert check(port, 2) == [1, 1]
    assert process.poll() is None
    assert check(port) == [1]
    said, _ = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert '"event":"process.hung"' in said.splitlines()[-1]


@LINUX
async def test_a_process_whose_loop_hangs_says_where_and_is_ended(start: Start, port: int) -> None:
    process = start(GATEWAY)
    await well(port)
    ask(port, "/hang")
    assert check(port, 3) == [1, 1, 1]
    _, said = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert " in stuck\n" in said


@LINUX
async def test_checks_without_an_answer_count_only_in_a_row(start: Start, port: int) -> None:
    process = start(GATEWAY)
    await well(port)
    for _ in range(2):
        process.send_signal(signal.SIGSTOP)
        assert check(port, 2) == [1, 1]
        process.send_signal(signal.SIGCONT)
        await well(port)
    assert process.poll() is None


@LINUX
async def test_a_process_that_answers_is_left_alone_whatever_it_answers(start: Start, port: int) -> None:
    """503: broker or database are away, and it waits for them."""
    process = start(GATEWAY)
    await well(port)
    assert check(port, 5, "/503") == [1] * 5
    assert process.poll() is None


@LINUX
async def test_a_process_that_has_let_go_of_its_port_is_left_alone(start: Start, port: int) -> None:
    """It finishes what is in hand, within its grace."""
    process = start(GATEWAY)
    await well(port)
    ask(port, "/release")
    await until(lambda: alive.holder_of(port) == "")
    assert check(port, 5) == [1] * 5
    assert process.poll() is None


@LINUX
async def test_a_process_that_starts_is_left_alone(start: Start, port: int) -> None:
    """Also where another has been well before it, and did not answer in the end."""
    before = start(GATEWAY)
    assert check(port, 5) == [1] * 5, "it refuses"
    await well(port)
    before.send_signal(signal.SIGSTOP)
    assert check(port, 2) == [1, 1]
    before.kill()
    before.wait()
    process = start(STARTING)
    await until(lambda: alive.holder_of(port), 20)
    assert alive.asked(port, "/") is None, "it holds its port and does not answer"
    assert check(port, 5) == [1] * 5
    assert process.poll() is None


@LINUX
def test_a_host_without_ipv6_has_one_list_of_sockets(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read = alive.read

    def without(path: str) -> str:
        return read("/nowhere" if path.endswith("tcp6") else path)

    monkeypatch.setattr(alive, "read", without)
    with socket.create_server(("127.0.0.1", port)):
        assert alive.holder_of(port).startswith(f"{os.getpid()} ")


def test_without_a_place_for_its_memory_it_checks_all_the_same(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "MEMORY", "/nowhere")
    assert check(port) == [1]


async def test_as_the_engine_runs_it(start: Start, port: int) -> None:
    start(GATEWAY)
    await well(port)
    assert [command(port, path) for path in ("/200", "/404")] == [0, 1]
    os.unlink(f"/tmp/alive-{port}")
