"""The control API under `/_sandbox/`, for tests and the demo. JSON in and out, names in camelCase; no authentication.

| call | body | answer |
|---|---|---|
| `GET records[?after=N]` | | `records.Snapshot`: webhooks, calls, tokens, platform, changes, violations |
| `GET world` | | `truth.Truth`: items, collections, gone, expected |
| `GET config` | | `config.SandboxConfig` without its secrets |
| `GET connections` | | list of `{connectionId, state, userId, locations, resources, expiresAt}` |
| `POST connect` | `{"connectionId", "state"?}` | `{"url"}`: where the user's browser goes |
| `POST check` | `{"connectionId"}` | check_connection once more, match again; `{"locations", "resources"}`: how many |
| `POST changes` | `operations.ChangeOrder`; `kind` is one of `world.CHANGES` | `{kind, url, order, deleted, gone}` |
| `POST storm` | `operations.StormOrder`: `{"changes", "mix": {kind: weight}, "concurrency"?}` | `{"done"}` |
| `POST burst` | `operations.BurstOrder`: `{"count", "targets", …}` | `{"sent"}` |
| `POST webhooks` | `{"connectionId", "body" (text, sent as it is), "token"?, "url"?}` | the `WebhookRecord` |
| `GET / POST / DELETE faults` | POST: `faults.Fault`; DELETE: `?kind=`, else all | the open faults |
| `POST tokens` | `{"access": "expire"}`, `{"refresh": "revoke"}` or both | `{}`; concerns what the gateway holds |
| `POST life` | `{"every": seconds}` | random changes by itself; 0 stops |
| `POST quiet` | `{}` | `{"order"}` once nothing is under way and life is stopped |

Errors: 400 `{"error"}` for a request that does not fit, 502 `{"error"}` when the platform failed.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from sandbox.faults import Fault
from sandbox.operations import BurstOrder, ChangeOrder, Operations, StormOrder
from sandbox.platform import PLATFORM, PlatformError
from sandbox.state import SANDBOX, Connection
from sandbox.truth import truth
from sandbox.world import UnknownItemError

Order = TypeVar("Order", bound=Struct)

OPERATIONS = web.AppKey("operations", Operations)
SECRETS = {"clientSecret", "platformClientSecret", "hashKey"}
TOKENS = {"accessToken", "refreshToken", "sentState", "lifetime"}


class ConnectOrder(Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    connection_id: int
    state: str = ""


class CheckOrder(Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    connection_id: int


class RawWebhook(Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    connection_id: int
    body: str
    token: str | None = None
    """None: the connection's own; empty: no Authorization header."""
    url: str = ""
    """The target to put into the record."""


class TokensOrder(Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    access: str = ""
    refresh: str = ""


class LifeOrder(Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    every: float


def routes() -> list[web.RouteDef]:
    table: list[tuple[str, str, Callable[[web.Request], Awaitable[web.Response]]]] = [
        ("GET", "records", get_records),
        ("GET", "world", get_world),
        ("GET", "config", get_config),
        ("GET", "connections", get_connections),
        ("POST", "connect", post_connect),
        ("POST", "check", post_check),
        ("POST", "changes", post_change),
        ("POST", "storm", post_storm),
        ("POST", "burst", post_burst),
        ("POST", "webhooks", post_webhook),
        ("GET", "faults", get_faults),
        ("POST", "faults", post_fault),
        ("DELETE", "faults", delete_faults),
        ("POST", "tokens", post_tokens),
        ("POST", "life", post_life),
        ("POST", "quiet", post_quiet),
    ]
    return [web.route(method, f"/_sandbox/{name}", handler) for method, name, handler in table]


@web.middleware
async def errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """What the operations raise, as JSON."""
    try:
        return await handler(request)
    except (UnknownItemError, msgspec.ValidationError, msgspec.DecodeError) as error:
        return _json({"error": str(error)}, 400)
    except PlatformError as error:
        return _json({"error": str(error)}, 502)


async def get_records(request: web.Request) -> web.Response:
    after = request.query.get("after", "0")
    return _json(request.app[SANDBOX].records.snapshot(int(after) if after.isdecimal() else 0))


async def get_world(request: web.Request) -> web.Response:
    return _json(truth(request.app[SANDBOX]))


async def get_config(request: web.Request) -> web.Response:
    return _json(_without(request.app[SANDBOX].config, SECRETS))


async def get_connections(request: web.Request) -> web.Response:
    return _json([_without(connection, TOKENS) for connection in request.app[SANDBOX].connections.values()])


async def post_connect(request: web.Request) -> web.Response:
    order = await _body(request, ConnectOrder)
    return _json({"url": request.app[PLATFORM].authorize_url(order.connection_id, order.state)})


async def post_check(request: web.Request) -> web.Response:
    connection = _connection(request, (await _body(request, CheckOrder)).connection_id)
    await request.app[PLATFORM].check(connection)
    return _json({"locations": len(connection.locations), "resources": len(connection.resources)})


async def post_change(request: web.Request) -> web.Response:
    return _json(await request.app[OPERATIONS].change(await _body(request, ChangeOrder)))


async def post_storm(request: web.Request) -> web.Response:
    return _json({"done": await request.app[OPERATIONS].storm(await _body(request, StormOrder))})


async def post_burst(request: web.Request) -> web.Response:
    return _json({"sent": await request.app[OPERATIONS].burst(await _body(request, BurstOrder))})


async def post_webhook(request: web.Request) -> web.Response:
    order = await _body(request, RawWebhook)
    connection = _connection(request, order.connection_id)
    sender = request.app[PLATFORM].sender
    return _json(await sender.send_raw(connection, order.body.encode(), order.token, order.url))


async def get_faults(request: web.Request) -> web.Response:
    return _json(request.app[SANDBOX].faults.open)


async def post_fault(request: web.Request) -> web.Response:
    request.app[SANDBOX].faults.order(await _body(request, Fault))
    return await get_faults(request)


async def delete_faults(request: web.Request) -> web.Response:
    request.app[SANDBOX].faults.clear(request.query.get("kind"))
    return await get_faults(request)


async def post_tokens(request: web.Request) -> web.Response:
    order = await _body(request, TokensOrder)
    grants = request.app[SANDBOX].grants
    if order.access == "expire":
        grants.expire_access()
    if order.refresh == "revoke":
        grants.revoke_refresh()
    return _json({})


async def post_life(request: web.Request) -> web.Response:
    request.app[OPERATIONS].live((await _body(request, LifeOrder)).every)
    return _json({})


async def post_quiet(request: web.Request) -> web.Response:
    await request.app[OPERATIONS].quiet()
    return _json({"order": request.app[SANDBOX].records.last})


def _connection(request: web.Request, connection_id: int) -> Connection:
    try:
        return request.app[SANDBOX].connections[connection_id]
    except KeyError:
        raise UnknownItemError(f"no connection {connection_id}") from None


def _without(struct: Struct, names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(struct).items() if name not in names}


def _json(answer: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), status=status, content_type="application/json")


async def _body(request: web.Request, kind: type[Order]) -> Order:
    return msgspec.json.decode(await request.read(), type=kind)
