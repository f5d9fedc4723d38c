"""Syncaroo as a client of the platform: sends users to consent, exchanges codes, checks connections, refreshes.

The user comes back to `/connection` → code exchange → check_connection → matching → first burst of webhooks.
Every answer is judged by `answers`; each mistake is a violation in the records, being away is none.
"""

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from sandbox import answers, matching
from sandbox.invent import JsonObject
from sandbox.records import PlatformRecord
from sandbox.rendering import page
from sandbox.state import SANDBOX, Connection, Sandbox
from sandbox.webhooks import Sender
from sandbox.world import Change

TIMEOUT = aiohttp.ClientTimeout(total=30)
AWAY = frozenset({0, 502, 503, 504})
"""No answer, or that of somebody who says so."""


class PlatformError(Exception):
    """The platform did not answer as the guide says; the text is for the page and the records."""


class Platform:
    """The client side for all connections; owns the HTTP session, the sender and what runs in the background."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        self._locks: dict[int, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._checking: asyncio.Task[None] | None = None
        self.sender = Sender(sandbox, self._http, self.freshen)

    async def close(self) -> None:
        running = [*self._tasks, *([self._checking] if self._checking else [])]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._http.close()

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def quiet(self) -> None:
        """Until nothing that was begun is under way; what was held back is sent."""
        await self.sender.release()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def authorize_url(self, connection_id: int, state: str = "") -> str:
        """Where a user's browser is sent to add the integration; begins the connection anew."""
        self._sandbox.connections[connection_id] = Connection(connection_id=connection_id, sent_state=state)
        config = self._sandbox.config
        asked = {
            "connectionId": str(connection_id),
            "clientId": config.platform_client_id,
            "redirectUri": config.redirect_uri,
            "responseType": "code",
        } | ({"state": state} if state else {})
        return f"{config.auth_uri}?{urlencode(asked)}"

    async def complete(self, connection: Connection, code: str) -> None:
        """The user is back with a code: exchange, check, burst. Raises PlatformError."""
        connection.state = "failed"
        await self._tokens(connection, "exchange", {"code": code, "grantType": "authorization_code"})
        connection.state = "exchanged"
        if self._sandbox.faults.take("early_webhook"):
            await self._early(connection)
        await self.check(connection)
        connection.state = "confirmed"
        if self._sandbox.config.first_burst:
            self.in_background(self.burst(connection))

    async def check(self, connection: Connection) -> None:
        """Ask check_connection, match again. An expired token is refreshed once. Raises PlatformError."""
        await self.freshen(connection)
        status, content_type, answer = await self._check(connection)
        if status == 401:
            connection.expires_at = 0.0
            await self.freshen(connection)
            status, content_type, answer = await self._check(connection)
        mistakes = answers.check_mistakes(status, content_type, answer, connection.connection_id)
        self._judge("check_connection", status, mistakes)
        if answer is None or not isinstance(answer.get("locations"), dict):
            raise PlatformError("check_connection gave no locations")
        connection.user_id = str(answer.get("userId"))
        ours = self._sandbox.world.collection("/v1/locations") or []
        connection.locations, connection.resources = matching.match_all(ours, answer["locations"])

    async def freshen(self, connection: Connection) -> None:
        """Refresh the connection's tokens when the access token is about to expire; failure is recorded only."""
        async with self._locks.setdefault(connection.connection_id, asyncio.Lock()):
            if not connection.refresh_token or time.time() < connection.expires_at - min(30, connection.lifetime / 2):
                return
            fields = {"refreshToken": connection.refresh_token, "grantType": "refresh_token"}
            try:
                await self._tokens(connection, "refresh", fields)
            except PlatformError:
                connection.expires_at = time.time() + 5  # the next webhooks try what we have; ask again later

    def first_set(self, connection: Connection) -> list[Change]:
        """What the initial sync tells: matched locations and resources, and the rates of those resources."""
        world = self._sandbox.world
        told: list[Change] = []
        for path, node in world.items():
            if node.noun == "locations" and node.ident in connection.locations:
                told.append(world.describe(path))
            if node.noun == "resources" and node.ident in connection.resources:
                told += [world.describe(path), world.describe(f"{path}/rates")]
        return told

    async def burst(self, connection: Connection) -> None:
        """Send the initial set of webhooks."""
        told = [(connection, change) for change in self.first_set(connection)]
        await self.sender.tell_all(told, cause="first")

    def keep_checking(self, every: float) -> None:
        """Call check_connection of all confirmed connections again and again (D: "continuously")."""
        self._checking = asyncio.create_task(self._check_all(every))

    async def _check_all(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            for connection in list(self._sandbox.connections.values()):
                if connection.state == "confirmed":
                    with contextlib.suppress(PlatformError):
                        await self.check(connection)

    async def _early(self, connection: Connection) -> None:
        """A webhook before check_connection: Syncaroo has matched by then, or believes so."""
        path, node = next(self._sandbox.world.items())
        connection.locations = {node.ident: "1198"}
        await self.sender.send(connection, self._sandbox.world.describe(path), cause="early")

    async def _tokens(self, connection: Connection, what: str, fields: dict[str, str]) -> None:
        """Exchange or refresh with exactly the guide's fields; keeps the pair. Raises PlatformError."""
        config = self._sandbox.config
        form = {"clientId": config.platform_client_id, "clientSecret": config.platform_client_secret} | fields
        record = self._sandbox.records.platform_sent(what, connection.connection_id, config.auth_token_uri)
        status, _, answer = await self._ask(record, "POST", data=form)
        mistakes = answers.token_mistakes(status, answer)
        self._judge(what, status, mistakes)
        if mistakes or answer is None:
            raise PlatformError(f"{what}: {'; '.join(mistakes)}")
        connection.access_token, connection.refresh_token = answer["accessToken"], answer["refreshToken"]
        connection.expires_at = answers.expires_at(answer["expires"])
        connection.lifetime = max(0.0, connection.expires_at - time.time())

    async def _check(self, connection: Connection) -> tuple[int, str, JsonObject | None]:
        config = self._sandbox.config
        url = f"{config.check_connection_uri}?connectionId={connection.connection_id}"
        record = self._sandbox.records.platform_sent("check_connection", connection.connection_id, url)
        return await self._ask(record, "GET", headers={"Authorization": f"Bearer {connection.access_token}"})

    async def _ask(self, record: PlatformRecord, method: str, **sent: Any) -> tuple[int, str, JsonObject | None]:
        """Status (0: no answer), Content-Type and JSON object of an answer."""
        try:
            async with self._http.request(method, record.url, timeout=TIMEOUT, allow_redirects=False, **sent) as answer:
                raw = await answer.read()
                self._sandbox.records.answered(record, answer.status)
                return answer.status, answer.headers.get("Content-Type", ""), answers.parsed(raw)
        except (aiohttp.ClientError, TimeoutError) as error:
            record.error = type(error).__name__
            return 0, "", None

    def _judge(self, what: str, status: int, mistakes: list[str]) -> None:
        if status in AWAY:  # that is no breach of the guide, and its record tells of it
            return
        for mistake in mistakes:
            self._sandbox.records.violation(what, f"platform's {what}: {mistake}")


PLATFORM = web.AppKey("platform", Platform)


def routes() -> list[web.RouteDef]:
    return [web.get("/connection", back)]


async def back(request: web.Request) -> web.Response:
    """The user returns from the platform: `connectionId`, and `code` or `error`."""
    sandbox = request.app[SANDBOX]
    query = request.query
    number = query.get("connectionId", "")
    connection = sandbox.connections.get(int(number)) if number.isdecimal() else None
    if connection is None:
        sandbox.records.violation("redirect", "/connection: connectionId is missing or not ours")
        return page("message.html", 400, title="Unknown connection", text="There is no connection of this number.")
    if query.get("state", "") != connection.sent_state:
        sandbox.records.violation("redirect", "/connection: state is not the one sent")
    if "code" not in query:
        return _not_connected(sandbox, connection, query.get("error", ""))
    try:
        await request.app[PLATFORM].complete(connection, query["code"])
    except PlatformError as error:
        return page("message.html", 502, title="The connection failed", text=str(error))
    text = f"{len(connection.locations)} locations and {len(connection.resources)} resources are matched."
    return page("message.html", title=f"Connection {number} is confirmed", text=text)


def _not_connected(sandbox: Sandbox, connection: Connection, error: str) -> web.Response:
    if error != "access_denied":
        sandbox.records.violation("redirect", f"/connection: neither code nor access_denied, but {error!r}")
    connection.state = "denied"
    return page("message.html", title="Not connected", text="You did not allow the connection.")
