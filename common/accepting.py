"""Accepting connections: many at each turn of the event loop.

libuv, under uvloop, accepts one at each turn (libuv #3696, since 1.45), and under load a turn is long: of 4,000 clients
that came at once, 3,500 waited four seconds for their first answer while the others were served again and again.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence

from aiohttp import web

from common.logs import get_logger

BACKLOG = 1024
AT_ONCE = 128
"""Accepted in one turn at most, so that those who are connected have theirs."""
REST_SECONDS = 1.0
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""No files or no memory are left."""

log = get_logger(__name__)


class AcceptingSite(web.BaseSite):
    """An address to listen on, as aiohttp's own `TCPSite`."""

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        super().__init__(runner)
        self._host = host
        self._port = port
        self._accepting: _Accepting | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen on all addresses of the host.

        Raises:
            OSError: somebody else listens there, or we may not.
        """
        server = self._runner.server
        assert server is not None
        self._accepting = _Accepting(server, await _listening(self._host, self._port))
        self._server = self._accepting  # type: ignore[assignment]  # the runner asks for its sockets
        await super().start()

    async def stop(self) -> None:
        """Take no more; who was accepted has begun, and is the runner's to end."""
        await super().stop()
        if self._accepting is not None:
            await self._accepting.begun()


async def _listening(host: str, port: int) -> list[socket.socket]:
    loop, found = asyncio.get_running_loop(), list[socket.socket]()
    infos = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = dict.fromkeys((family, address) for family, _, _, _, address in infos)
    for number, (family, address) in enumerate(addresses, 1):
        try:
            one = socket.create_server(address, family=family, backlog=BACKLOG)
        except OSError as error:
            if error.errno == errno.EAFNOSUPPORT and (found or number < len(addresses)):
                continue  # a kernel without IPv6
            for one in found:
                one.close()
            raise
        one.setblocking(False)
        found.append(one)
    return found


class _Accepting:
    """Until it is closed."""

    def __init__(self, server: web.Server, sockets: Sequence[socket.socket]) -> None:
        self.sockets = sockets
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._beginning: set[asyncio.Task[None]] = set()
        for one in sockets:
            self._accept_from(one)

    def close(self) -> None:
        """Take no more."""
        for one in self.sockets:
            self._loop.remove_reader(one)
            one.close()
        self.sockets = ()

    async def begun(self) -> None:
        """Return when all that were accepted are connections of the server."""
        if self._beginning:
            await asyncio.wait(self._beginning)

    def _accept_from(self, listening: socket.socket) -> None:
        if listening in self.sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:  # this one is gone again
                    continue
                # Asking again at once would take all of the processor.
                log.error("http.cannot_accept", reason=errno.errorcode[error.errno])
                self._loop.remove_reader(listening)
                self._loop.call_later(REST_SECONDS, self._accept_from, listening)
                return
            beginning = self._loop.create_task(self._begin(connection))
            self._beginning.add(beginning)
            beginning.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._server, connection)
        except BaseException as error:
            connection.close()
            if not isinstance(error, OSError):
                raise
            log.debug("http.connection_failed", reason=type(error).__name__)  # it is gone again
