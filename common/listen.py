"""Serving applications on ports: bounded in time, and ended without cutting anybody off (RELIABILITY A1, A7, A8)."""

from __future__ import annotations

import asyncio
import logging
import resource
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from common.accepting import AcceptingSite
from common.errors import SettingsError
from common.logs import get_logger
from common.process import pause
from common.straight import STRAIGHT, past

KEEPALIVE_SECONDS = 10.0
"""For the head of the next request, too, whenever it begins."""
LINGER_SECONDS = 5.0
FINISH_SECONDS = 8.0
SILENT_SECONDS = 8.0
TAKE_SECONDS = 30.0
SWEEP_SECONDS = 1.0

log = get_logger(__name__)

Since = dict[web.RequestHandler, float]


@dataclass(frozen=True)
class Unsent:
    """What waits to be taken on a connection: so many bytes, none fewer since then."""

    size: int
    since: float


class NotTheirs(logging.Filter):
    """Drops what is the client's fault: aiohttp tells each malformed request as an error, with what was sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_http_log = logging.getLogger("http")
_http_log.addFilter(NotTheirs())


class Listener:
    """One application on one port."""

    def __init__(self, app: web.Application, host: str, port: int, setting: str) -> None:
        """`setting` is the name of the setting that holds the port."""
        self._app = app
        self._host = host
        self._port = port
        self._setting = setting
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            logger=_http_log,
            access_log=None,  # aiohttp's own prints queries: codes and states
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=LINGER_SECONDS,
            shutdown_timeout=FINISH_SECONDS,
            auto_decompress=False,
        )
        self._silent_since: Since = {}
        self._unsent: dict[web.RequestHandler, Unsent] = {}

    async def start(self) -> int:
        """Listen; the result is the port (of interest when the setting says 0).

        Raises:
            SettingsError: somebody else listens there, or we may not.
        """
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        server.request_handler = past(server.request_handler, self._app.get(STRAIGHT, {}))
        try:
            await AcceptingSite(self._runner, self._host, self._port).start()
        except OSError as error:
            raise SettingsError([f"{self._setting}: cannot listen there ({error.strerror or 'OSError'})"]) from error
        port = int(self._runner.addresses[0][1])
        log.info("http.listening", host=self._host, port=port)
        return port

    async def close(self) -> None:
        """Take no new connections, finish the requests in hand for at most 8 s, close."""
        await self._runner.cleanup()

    async def close_silent(self, stop: asyncio.Event) -> None:
        """Until `stop`: close connections that have sent no whole request within 8 s of being made, or have taken
        nothing of what they asked for, for 30 s."""
        while not await pause(stop, SWEEP_SECONDS):
            self._sweep(asyncio.get_running_loop().time())

    def _sweep(self, now: float) -> None:
        server = self._runner.server
        if server is None:
            return
        connections = server.connections
        self._silent_since = {one: self._silent_since.get(one, now) for one in connections if is_silent(one)}
        self._unsent = {one: _unsent(one, self._unsent.get(one), now) for one in connections if one.writing_paused}
        deaf_since = {one: unsent.since for one, unsent in self._unsent.items()}
        for connection in _longer(self._silent_since, now - SILENT_SECONDS):
            connection.force_close()
        for connection in _longer(deaf_since, now - TAKE_SECONDS):
            if connection.transport is not None:
                connection.transport.abort()  # closing would wait for them


def _longer(since: Since, then: float) -> list[web.RequestHandler]:
    return [connection for connection, began in since.items() if began < then]


def _unsent(connection: web.RequestHandler, before: Unsent | None, now: float) -> Unsent:
    left = connection.transport.get_write_buffer_size() if connection.transport is not None else 0
    return Unsent(left, now if before is None or left < before.size else before.since)


def is_silent(connection: web.RequestHandler) -> bool:
    """Whether a connection has never had a whole request. aiohttp has no public word for it; a test guards this one."""
    return connection._request_count == 0 and connection._current_request is None


def raise_file_limit() -> None:
    """Let this process have as many connections as the machine allows: the usual soft limit is 1024 files."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
