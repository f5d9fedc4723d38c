"""ops.stack: processes are started, killed, frozen, restarted and ended by name, and nothing is left behind."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ops.children import free_port
from ops.stack import Stack, StackFailed, environment, sandbox_arguments
from tests.waiting import until

_SERVER = """
import os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        assert self.path == "/readyz"
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass

signal.signal(signal.SIGTERM, lambda *_: (print("bye", flush=True), os._exit(0)))
print("hello", flush=True)
HTTPServer((os.environ["HTTP_HOST"], int(os.environ["HTTP_PORT"])), Ready).serve_forever()
"""
_DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\nsignal.pause()"
_WRONG = "print('AMQP_URL: is required')\nraise SystemExit(78)"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    settings = environment(amqp_url="amqp://localhost/x", database_url="sqlite+aiosqlite:///x.db")
    async with Stack(settings, tmp_path / "stack", grace=3) as made:
        yield made


async def test_two_of_a_role_listen_apart_and_end_in_good_order(stack: Stack) -> None:
    names = await stack.start("ingress", 2, command=["-c", _SERVER])
    await stack.wait_ready()

    assert names == ["ingress-1", "ingress-2"] == stack.names("ingress")
    assert stack.url == stack.url_of("ingress-1") != stack.url_of("ingress-2")
    assert await stack.stop() == {"ingress-1": 0, "ingress-2": 0}
    assert stack.names() == []
    assert stack.logs("ingress-1").split() == ["hello", "bye"]


async def test_a_killed_process_is_restarted_with_the_same_name_port_and_log(stack: Stack) -> None:
    await stack.start("ingress", command=["-c", _SERVER])
    await stack.wait_ready()

    assert await stack.kill("ingress-1") == -signal.SIGKILL == stack.exit_code("ingress-1")
    await stack.restart("ingress-1")
    await stack.wait_ready()

    assert stack.logs("ingress-1").split() == ["hello", "hello"]


async def test_a_frozen_process_does_not_answer_until_it_is_resumed(stack: Stack) -> None:
    await stack.start("ingress", command=["-c", _SERVER])
    await stack.wait_ready()

    stack.freeze("ingress-1")
    with pytest.raises(StackFailed, match=r"not ready within 0.5 s: .* has not answered"):
        await stack.wait_ready(timeout=0.5)
    stack.resume("ingress-1")
    await stack.wait_ready()

    stack.freeze("ingress-1")
    assert await stack.terminate("ingress-1") == 0, "a frozen process is woken to hear that it should end"


async def test_who_does_not_hear_sigterm_is_killed_after_the_grace(stack: Stack) -> None:
    await stack.start("relay", command=["-c", _DEAF])
    await until(lambda: "deaf" in stack.logs("relay-1"))

    assert await stack.terminate("relay-1") == -signal.SIGKILL


async def test_a_process_that_ends_is_told_with_its_last_words(stack: Stack) -> None:
    await stack.start("ingress", command=["-c", _SERVER])
    await stack.start("fetch", command=["-c", _WRONG])
    assert await stack.wait("fetch-1", 10) == 78

    with pytest.raises(StackFailed, match=r"(?s)fetch-1 ended with exit code 78.*AMQP_URL: is required"):
        await stack.wait_ready()


async def test_a_command_runs_to_its_end(stack: Stack) -> None:
    done = await stack.run("-c", "import os; print(os.environ['X']); raise SystemExit(3)", settings={"X": "y"})

    assert (done.code, done.output) == (3, "y\n")


async def test_processes_die_with_their_parent(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells children of their parent's death")
    program = f"""
import asyncio, os, pathlib, signal
from ops.stack import Stack

async def main():
    stack = Stack(dict(os.environ), pathlib.Path({str(tmp_path)!r}))
    await stack.start("relay", command=["-c", {_DEAF!r}])
    while "deaf" not in stack.logs("relay-1"):
        await asyncio.sleep(0.01)
    print(stack.pid("relay-1"), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    ran = await Stack({**os.environ}, tmp_path).run("-c", program)

    pid = int(ran.output)
    await until(lambda: not os.path.exists(f"/proc/{pid}"), what="the child's end")


def test_the_environment_is_complete_and_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPS_PORT", "1")
    port = free_port()

    one, two = (environment(amqp_url="amqp://h/v", database_url="d", sandbox_port=port) for _ in range(2))

    assert "OPS_PORT" not in one, "our own settings do not leak in"
    assert one["SECRET_KEYS"] != two["SECRET_KEYS"]
    assert one["HTTP_PORT"] != two["HTTP_PORT"]
    assert one["SITE_URI"] == f"http://127.0.0.1:{one['HTTP_PORT']}"
    assert one["SYNCAROO_BASE_URL"] == f"http://127.0.0.1:{port}"
    assert one["SYNCAROO_API_HOSTS"] == f"127.0.0.1:{port}"
    assert one["PLATFORM_REDIRECT_URIS"] == f"http://127.0.0.1:{port}/connection"
    assert f"--port={port}" in sandbox_arguments(one)


async def test_the_sandbox_is_one_of_the_roles(stack: Stack) -> None:
    await stack.start("sandbox", arguments=sandbox_arguments(stack.environment))

    await until(lambda: _listens(stack.sandbox_url), what="the sandbox to listen")
    assert await stack.terminate("sandbox-1") == 0


async def _listens(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
