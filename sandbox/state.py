"""The stand-in's parts, put together once per application; and what it knows of tokens and connections."""

import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from msgspec import Struct

from sandbox.config import SandboxConfig
from sandbox.faults import Faults
from sandbox.records import Records
from sandbox.world import World


class Connection(Struct, kw_only=True, rename="camel"):
    """A user's integration with the platform; times are `time.time()`. Tokens are the platform's."""

    connection_id: int
    sent_state: str = ""
    """The `state` sent with the user; empty: none, as in the guide."""
    state: str = "started"
    """`started`, `denied`, `exchanged`, `confirmed`, `failed`."""
    user_id: str = ""
    access_token: str = ""
    expires_at: float = 0.0
    lifetime: float = 0.0
    refresh_token: str = ""
    locations: dict[str, str] = {}
    """World's id to the platform's, of matched locations."""
    resources: dict[str, str] = {}
    """World's id to the platform's, of matched resources."""


class Granted(Struct, kw_only=True):
    """A code or a token that we issued to the gateway."""

    expires_at: float
    used: bool = False
    delivered: bool = True
    """The answer that used it up was sent, so presenting it again is a mistake."""
    redirect_uri: str = ""


@dataclass
class Grants:
    """Issued by our provider side, by value; `epoch` seconds as `time.time()`."""

    codes: dict[str, Granted] = field(default_factory=dict)
    access: dict[str, Granted] = field(default_factory=dict)
    refresh: dict[str, Granted] = field(default_factory=dict)

    def access_state(self, token: str) -> str:
        """`live`, `expired` or `unknown`."""
        granted = self.access.get(token)
        if granted is None:
            return "unknown"
        return "live" if time.time() < granted.expires_at else "expired"

    def expire_access(self) -> None:
        for granted in self.access.values():
            granted.expires_at = 0.0

    def revoke_refresh(self) -> None:
        self.refresh.clear()


@dataclass
class Sandbox:
    """One stand-in: what every handler needs. Handlers read it with `request.app[SANDBOX]`."""

    config: SandboxConfig
    world: World
    records: Records
    faults: Faults
    grants: Grants = field(default_factory=Grants)
    connections: dict[int, Connection] = field(default_factory=dict)

    @classmethod
    def build(cls, config: SandboxConfig) -> "Sandbox":
        world = World(config.seed, config.locations, config.resources, config.rates)
        return cls(config, world, Records(), Faults(config.seed))

    def url(self, path: str) -> str:
        return self.config.url + path

    def path(self, url: str | None) -> str | None:
        """The path of one of our URLs; a path stays as it is."""
        return urlsplit(url).path if url else None

    def platform_tokens(self) -> set[str]:
        """Tokens that the platform issued to us; none of them belongs in a call to our API."""
        return {token for c in self.connections.values() for token in (c.access_token, c.refresh_token) if token}


def json_answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer that no cache keeps."""
    return web.json_response(body, status=status, headers={"Cache-Control": "no-store"} | (headers or {}))


SANDBOX = web.AppKey("sandbox", Sandbox)
