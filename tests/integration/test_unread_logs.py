"""T-LOGPIPE. The log of a process goes into a pipe that nobody reads, is read again, or has no other end any more."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import aiohttp
import psutil  # type: ignore[import-untyped]  # it ships no types

from common.broker.setup import declare_topology
from common.broker.topology import work_queues
from ops.broker import Vhost
from ops.children import die_with_parent
from ops.stack import environment
from tests.ingress_app import bearer, webhook
from tests.waiting import until

LOST = "gateway_log_lines_lost_total "
WEBHOOKS = 1_000
"""A line each: more than a pipe has room for (64 KiB on Linux)."""
ANSWER_SECONDS = 5.0
GROWTH = 20 * 2**20


class Unread:
    """`python -m ingress`, which logs each webhook that it gets, into a pipe."""

    def __init__(self, settings: dict[str, str], directory: Path, http: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._http = http
        self.url = f"http://127.0.0.1:{settings['HTTP_PORT']}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ingress"],
            env=settings,
            cwd=directory,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent(),  # noqa: PLW1509  # it takes no lock between fork and exec
        )

    @property
    def log(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    async def send(self) -> int:
        """A webhook whose hash is wrong, which is accepted and logged → its status."""
        headers = bearer(key=self._settings["SECRET_KEYS"])
        async with self._http.post(f"{self.url}/update", data=json.dumps(webhook()), headers=headers) as answer:
            return answer.status

    async def lost(self) -> int:
        async with self._http.get(f"{self.url}/metrics") as answer:
            [line] = [one for one in (await answer.text()).splitlines() if one.startswith(LOST)]
            return int(float(line.removeprefix(LOST)))

    async def is_ready(self) -> bool:
        try:
            async with self._http.get(f"{self.url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False

    async def end(self) -> int:
        """SIGTERM → exit code."""
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, 30)


@asynccontextmanager
async def running(vhost: Vhost, directory: Path) -> AsyncIterator[Unread]:
    await declare_topology(vhost.url, work_queues([]))
    settings = environment(amqp_url=vhost.url, database_url="", settings={"DRAIN_SECONDS": "0"})
    async with aiohttp.ClientSession() as http:
        started = Unread(settings, directory, http)
        try:
            await until(started.is_ready, 20, what="the ingress")
            yield started
        finally:
            started.process.kill()
            started.process.wait()
            started.log.close()


async def test_a_log_that_nobody_reads_stops_nobody(vhost: Vhost, tmp_path: Path) -> None:
    """Webhooks are taken in time, nothing is kept in memory, and the process ends when it is told to."""
    async with running(vhost, tmp_path) as unread:
        await _flood(unread)
        before = psutil.Process(unread.process.pid).memory_info().rss
        lost = await unread.lost()
        assert lost > 0, "the pipe is full"
        await _flood(unread)
        assert await unread.lost() >= lost + WEBHOOKS
        assert psutil.Process(unread.process.pid).memory_info().rss - before < GROWTH
        assert await unread.end() == 0


async def test_whoever_reads_on_gets_whole_lines_and_is_told_what_is_missing(vhost: Vhost, tmp_path: Path) -> None:
    async with running(vhost, tmp_path) as unread:
        await _flood(unread)
        lost = await unread.lost()
        assert lost > 0, "the pipe is full"
        reading = asyncio.create_task(asyncio.to_thread(lambda: list(map(json.loads, unread.log))))
        await until(lambda: _is_logged(unread, lost), what="a line that finds room")
        assert await unread.end() == 0
        lines = await reading
        [told] = [line["so_far"] for line in lines if line["event"] == "log.lines_lost"]
        assert lost <= told
        assert lines[-1]["event"] == "process.stopped"


async def test_a_log_without_a_reader_stops_nobody(vhost: Vhost, tmp_path: Path) -> None:
    async with running(vhost, tmp_path) as unread:
        unread.log.close()
        await _flood(unread)
        assert await unread.lost() >= WEBHOOKS
        assert await unread.end() == 0


async def _flood(unread: Unread) -> None:
    """All are accepted, each in time."""
    turn = asyncio.Semaphore(20)

    async def one() -> tuple[int, bool]:
        async with turn:
            began = time.monotonic()
            status = await unread.send()
            return status, time.monotonic() - began < ANSWER_SECONDS

    assert set(await asyncio.gather(*(one() for _ in range(WEBHOOKS)))) == {(200, True)}


async def _is_logged(unread: Unread, lost: int) -> bool:
    """Whether the line about one more webhook is not lost."""
    before = await unread.lost()
    return await unread.send() == 200 and await unread.lost() == before >= lost
