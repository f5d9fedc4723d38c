"""What a search for a broker ends in: an address, where it came from, and the virtual hosts made on it."""

import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import quote, urlsplit, urlunsplit

Say = Callable[[str], None]
"""Called with one line of progress for people; never with a password."""


class NoBroker(Exception):
    """No broker could be had; the text says what to install or to set."""


class NotHere(Exception):
    """This way of getting a broker is not open; the text says why, as the rest of a sentence."""


class VhostRefused(Exception):
    """The broker is there, but we may not make virtual hosts on it."""


class VhostAdmin(Protocol):
    """Makes and removes virtual hosts, many in one go because a single call of rabbitmqctl costs half a second."""

    def create(self, names: Sequence[str]) -> None:
        """Makes them, with every right for the user of the broker's URL. Raises VhostRefused."""

    def delete(self, names: Sequence[str]) -> None:
        """Removes them with all they hold; missing ones are no fault. Raises VhostRefused."""


@dataclass(frozen=True)
class Vhost:
    """A virtual host of our own, removed with all it holds by `close()`."""

    name: str
    url: str = field(repr=False)
    _admin: VhostAdmin = field(repr=False)

    def close(self) -> None:
        self._admin.delete([self.name])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


@dataclass
class Broker:
    """A RabbitMQ that may be used.

    `url` leads to a virtual host of our own, except where `AMQP_URL` named one. `origin` is the choice it came from:
    `AMQP_URL`, `localhost`, `docker` or `node`. `story` is one line for people. `management` is the base address of
    the management API, with no password in it, where one answers.
    """

    url: str = field(repr=False)
    origin: str
    story: str
    admin: VhostAdmin | None = None
    management: str | None = None
    on_close: list[Callable[[], None]] = field(default_factory=list, repr=False)

    def vhost(self, name: str = "gateway") -> Vhost:
        """A new, empty virtual host called `name` and a random ending. Raises VhostRefused."""
        return self.vhosts(1, name)[0]

    def vhosts(self, count: int, name: str = "gateway") -> list[Vhost]:
        """`count` new virtual hosts, made together (ten cost as much as one where rabbitmqctl makes them)."""
        if self.admin is None:
            raise VhostRefused(f"nothing lets us make virtual hosts on the broker of {self.origin}")
        names = [unique(name) for _ in range(count)]
        try:
            self.admin.create(names)
        except BaseException:  # Ctrl-C too: some may have been made
            with contextlib.suppress(VhostRefused):
                self.admin.delete(names)
            raise
        return [Vhost(each, on_vhost(self.url, each), self.admin) for each in names]

    def discard(self, vhosts: Sequence[Vhost]) -> None:
        """Removes many virtual hosts at once."""
        if vhosts and self.admin is not None:
            self.admin.delete([each.name for each in vhosts])

    def close(self) -> None:
        """Gives back all that was made for it: virtual host, container, child process. May be called twice."""
        while self.on_close:
            self.on_close.pop()()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def unique(name: str) -> str:
    """`name` with an ending that no other run has."""
    return f"{name}-{secrets.token_hex(4)}"


def on_vhost(url: str, vhost: str) -> str:
    """The same AMQP address with another virtual host; its query is kept."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path="/" + quote(vhost, safe="")))


def without_password(url: str) -> str:
    """The address as it may be shown: scheme, host, port, virtual host."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"
