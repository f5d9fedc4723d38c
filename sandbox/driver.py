"""Drives a running stand-in from a test or the demo, through its control API; the one client of `control`."""

from types import TracebackType
from typing import Any, TypeVar

import aiohttp
import msgspec

from sandbox.faults import Fault
from sandbox.operations import BurstOrder, ChangeDone, ChangeOrder, StormOrder
from sandbox.records import Snapshot, WebhookRecord
from sandbox.truth import Truth

Answer = TypeVar("Answer")


class DriverError(Exception):
    """The stand-in refused; its words."""


class ConnectionInfo(msgspec.Struct, kw_only=True, rename="camel"):
    """A connection as the stand-in sees it; `locations` and `resources` map its ids to the platform's."""

    connection_id: int
    state: str
    user_id: str
    expires_at: float
    locations: dict[str, str]
    resources: dict[str, str]


class SandboxDriver:
    """`async with SandboxDriver("http://127.0.0.1:8090") as sandbox: …`. Every call may raise DriverError."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300))

    async def __aenter__(self) -> "SandboxDriver":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.close()

    async def records(self, after: int = 0) -> Snapshot:
        """Everything that happened after number `after` of the one counter."""
        return await self._call("GET", f"records?after={after}", Snapshot)

    async def world(self) -> Truth:
        return await self._call("GET", "world", Truth)

    async def connections(self) -> dict[int, ConnectionInfo]:
        found = await self._call("GET", "connections", list[ConnectionInfo])
        return {connection.connection_id: connection for connection in found}

    async def config(self) -> dict[str, Any]:
        return await self._call("GET", "config", dict[str, Any])

    async def connect(self, connection_id: int, state: str = "") -> str:
        """Begin a connection: the URL that the user's browser goes to."""
        asked = {"connectionId": connection_id, "state": state}
        return (await self._call("POST", "connect", dict[str, str], asked))["url"]

    async def check(self, connection_id: int) -> dict[str, int]:
        """check_connection once more: how many `locations` and `resources` are matched."""
        return await self._call("POST", "check", dict[str, int], {"connectionId": connection_id})

    async def change(
        self,
        kind: str,
        url: str | None = None,
        *,
        value: str | float | None = None,
        webhook: bool = True,
        connection_id: int | None = None,
        wait: bool = True,
    ) -> ChangeDone:
        """Change the world (`world.CHANGES`); `webhook=False` loses the webhook."""
        order = ChangeOrder(kind=kind, url=url, value=value, connection_id=connection_id, wait=wait)
        if kind != "move" or not webhook:
            order.webhook = webhook
        return await self._call("POST", "changes", ChangeDone, order)

    async def storm(self, changes: int, mix: dict[str, int], *, concurrency: int | None = None) -> int:
        """Very many changes by weighted kinds, told as fast as the platform answers: how many were done."""
        order = StormOrder(changes=changes, mix=mix, concurrency=concurrency)
        return (await self._call("POST", "storm", dict[str, int], order))["done"]

    async def burst(
        self,
        count: int,
        targets: int,
        *,
        connection_id: int | None = None,
        concurrency: int | None = None,
        shuffle: bool = False,
        wait: bool = True,
    ) -> int:
        """`count` webhooks over `targets` pairs of connection and item: how many were sent."""
        order = BurstOrder(
            count=count,
            targets=targets,
            connection_id=connection_id,
            concurrency=concurrency,
            shuffle=shuffle,
            wait=wait,
        )
        return (await self._call("POST", "burst", dict[str, int], order))["sent"]

    async def webhook(self, connection_id: int, body: str, *, token: str | None = None, url: str = "") -> WebhookRecord:
        """Send these very bytes; `token` None: the connection's own, empty: none."""
        order = {"connectionId": connection_id, "body": body, "token": token, "url": url}
        return await self._call("POST", "webhooks", WebhookRecord, order)

    async def fault(self, kind: str, **parameters: Any) -> None:
        """Order a fault (`faults`, table); parameters are Fault's fields, in snake_case."""
        await self._call("POST", "faults", list[Fault], Fault(kind=kind, **parameters))

    async def faults(self) -> list[Fault]:
        """Those still open."""
        return await self._call("GET", "faults", list[Fault])

    async def clear_faults(self, kind: str | None = None) -> None:
        """Those of a kind, or all."""
        await self._call("DELETE", f"faults?kind={kind}" if kind else "faults", list[Fault])

    async def expire_access(self) -> None:
        """All access tokens that the gateway holds are refused from now on."""
        await self._call("POST", "tokens", dict[str, Any], {"access": "expire"})

    async def revoke_refresh(self) -> None:
        """All codes aside, what the gateway could refresh with is `invalid_grant` from now on."""
        await self._call("POST", "tokens", dict[str, Any], {"refresh": "revoke"})

    async def life(self, every: float) -> None:
        """Random changes by itself every so many seconds; 0 stops."""
        await self._call("POST", "life", dict[str, Any], {"every": every})

    async def quiet(self) -> int:
        """Stop life and return, when nothing is under way, the counter's last number."""
        return (await self._call("POST", "quiet", dict[str, int], {}))["order"]

    async def _call(self, method: str, name: str, answer: type[Answer], body: Any = None) -> Answer:
        raw = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json"}
        async with self._http.request(
            method, f"{self.base_url}/_sandbox/{name}", data=raw, headers=headers
        ) as response:
            content = await response.read()
        if response.status != 200:
            raise DriverError(f"{method} {name}: {response.status} {content.decode(errors='replace')}")
        return msgspec.json.decode(content, type=answer)
