"""The lines of a gateway lead through proxies that can be told to misbehave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from ops.children import free_ports
from ops.prove.proxy import Proxy

BROKER, STORE, SYNCAROO, WEBHOOKS = "to the broker", "to the store", "to Syncaroo", "from Syncaroo"


@dataclass(frozen=True)
class Wires:
    """The proxies by their lines; what the gateway is told of its neighbours; where ingress and stand-in really are."""

    of: Mapping[str, Proxy]
    settings: Mapping[str, str]
    ports: tuple[int, int]
    stand_in_url: str
    """What the stand-in calls itself."""

    @property
    def sandbox_url(self) -> str:
        """Where it is driven, whatever becomes of the line."""
        return f"http://127.0.0.1:{self.ports[1]}"


@asynccontextmanager
async def wired(amqp_url: str, database_url: str) -> AsyncIterator[Wires]:
    """All lines pass, until they are told otherwise. A store that is a file has none."""
    http_port, sandbox_port = free_ports(2)
    targets = {BROKER: _at(amqp_url, 5672), SYNCAROO: ("127.0.0.1", sandbox_port), WEBHOOKS: ("127.0.0.1", http_port)}
    if database_url.startswith("postgresql"):
        targets[STORE] = _at(database_url, 5432)
    async with AsyncExitStack() as ending:
        of = {name: await ending.enter_async_context(Proxy(*target)) for name, target in targets.items()}
        syncaroo = f"127.0.0.1:{of[SYNCAROO].port}"
        settings = {
            "AMQP_URL": of[BROKER].url(amqp_url),
            "DATABASE_URL": of[STORE].url(database_url) if STORE in of else database_url,
            "SITE_URI": f"http://127.0.0.1:{of[WEBHOOKS].port}",
            "SYNCAROO_BASE_URL": f"http://{syncaroo}",
            "SYNCAROO_API_HOSTS": syncaroo,
            "PLATFORM_REDIRECT_URIS": f"http://{syncaroo}/connection",
        }
        yield Wires(of, settings, (http_port, sandbox_port), f"http://{syncaroo}")


def _at(url: str, usual_port: int) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or usual_port
