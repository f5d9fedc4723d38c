"""A client of the admin API (`/admin/v1/…`), for the commands and the demo."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp

from common.codec import dumps, loads
from common.errors import BadJson, GatewayError

TIMEOUT = aiohttp.ClientTimeout(total=30, connect=5)
PAGE = 500


class AdminRefused(GatewayError):
    """The admin API did not do what was asked; the text says what and why."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class AdminApi:
    """`async with AdminApi("http://localhost:8080", token) as admin: …`; every call may raise AdminRefused."""

    def __init__(self, base_url: str, token: str) -> None:
        self.base_url = base_url.rstrip("/")
        self._token = token
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {self._token}"}
        self._http = aiohttp.ClientSession(timeout=TIMEOUT, headers=headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._http is not None
        await self._http.close()

    async def users(self) -> list[dict[str, Any]]:
        """All of them."""
        return [item async for item in self._items("users", {})]

    async def user(self, user_id: str) -> dict[str, Any]:
        """One user, without the password."""
        return await self._object("GET", f"users/{_quoted(user_id)}")

    async def put_user(self, user_id: str, login: str | None, password: str | None) -> bool:
        """Create the user (True), or change them; None leaves login or password as it is."""
        told = {"userId": user_id, "login": login, "password": password}
        body = {name: value for name, value in told.items() if value is not None}
        status, _ = await self._answer("PUT", f"users/{_quoted(user_id)}", body)
        return status == 201

    async def delete_user(self, user_id: str) -> None:
        """Erase the person, for good."""
        await self._call("DELETE", f"users/{_quoted(user_id)}")

    async def locations(self, user_id: str) -> dict[str, Any]:
        """The user's listings on the platform, by ID."""
        return await self._object("GET", f"users/{_quoted(user_id)}/locations")

    async def put_locations(self, user_id: str, locations: dict[str, Any]) -> None:
        """The user's listings on the platform, as check_connection shows them; absent ones become `deleted`."""
        await self._call("PUT", f"users/{_quoted(user_id)}/locations", locations)

    async def status(self) -> dict[str, Any]:
        """How things stand: grant, counts, broker."""
        return await self._object("GET", "status")

    async def listings(self, **filters: Any) -> list[dict[str, Any]]:
        """All of them, page after page; filters are the API's own, such as `connectionId`."""
        return [item async for item in self._items("listings", filters)]

    async def listing(self, listing_id: str) -> dict[str, Any]:
        """One, with all that is known of it."""
        return await self._object("GET", f"listings/{_quoted(listing_id)}")

    async def history(self, listing_id: str, limit: int) -> tuple[list[dict[str, Any]], bool]:
        """The latest events of a listing and attempts to read it, newest first, and whether there are more."""
        return await self._some(f"listings/{_quoted(listing_id)}/history", {}, limit)

    async def targets(self, **filters: Any) -> list[dict[str, Any]]:
        """URLs that were ever wanted; filters are the API's own, such as `url`."""
        return [item async for item in self._items("targets", filters)]

    async def attempts(self, connection_id: int, url: str, limit: int) -> tuple[list[dict[str, Any]], bool]:
        """The latest attempts for a URL, newest first, and whether there are more."""
        return await self._some("attempts", {"connectionId": connection_id, "url": url}, limit)

    async def connection(self, connection_id: int) -> dict[str, Any]:
        """One connection."""
        return await self._object("GET", f"connections/{connection_id}")

    async def connections(self, user_id: str | None = None) -> list[dict[str, Any]]:
        """All of them, or those of one user."""
        filters = {} if user_id is None else {"userId": user_id}
        return [item async for item in self._items("connections", filters)]

    async def revoke(self, connection_id: int) -> None:
        """End a connection: its tokens are refused, syncing stops, what is known of it is kept."""
        await self._call("DELETE", f"connections/{connection_id}")

    async def resync(self, connection_id: int, location_id: str | None = None) -> int:
        """Have every known target of the connection, or of one of its locations, read again → how many there are."""
        query = None if location_id is None else {"locationId": location_id}
        return int((await self._object("POST", f"connections/{connection_id}/resync", query=query))["targets"])

    async def held(self, connection_id: int | None = None) -> list[dict[str, Any]]:
        """What vanished together with too many others (of one connection, or of all)."""
        filters = {} if connection_id is None else {"connectionId": connection_id}
        return [item async for item in self._items("held", filters)]

    async def decide_held(self, connection_id: int, decision: str, held: int) -> None:
        """`approve` or `discard` all that the connection holds, refused when they are not `held` by now."""
        await self._call("POST", f"connections/{connection_id}/held/{decision}", query={"held": str(held)})

    async def dead_letters(
        self, queue: str | None = None, connection_id: int | None = None, reason: str | None = None
    ) -> list[dict[str, Any]]:
        """What could not be processed, oldest first."""
        filters = {"queue": queue, "connectionId": connection_id, "reason": reason}
        given = {name: value for name, value in filters.items() if value is not None}
        return [item async for item in self._items("dead-letters", given)]

    async def dead_letter(self, letter_id: str) -> dict[str, Any]:
        """One of them."""
        return await self._object("GET", f"dead-letters/{_quoted(letter_id)}")

    async def replay(self, letter_id: str) -> None:
        """Put a dead letter back where it came from."""
        await self._call("POST", f"dead-letters/{_quoted(letter_id)}/replay")

    async def drop(self, letter_id: str) -> None:
        """Forget a dead letter for good."""
        await self._call("DELETE", f"dead-letters/{_quoted(letter_id)}")

    async def unmatched_webhooks(self) -> list[bytes]:
        """The last raw bodies whose hash did not match, as the ingress remembers them."""
        return [base64.b64decode(item["body"]) async for item in self._items("unmatched-webhooks", {})]

    async def _items(self, path: str, filters: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        after: str | None = None
        while True:
            page = await self._page(path, filters, PAGE, after)
            for item in page["items"]:
                yield item
            after = page["next"]
            if after is None:
                return

    async def _some(self, path: str, filters: dict[str, Any], limit: int) -> tuple[list[dict[str, Any]], bool]:
        found: list[dict[str, Any]] = []
        after: str | None = None
        while len(found) < limit:
            page = await self._page(path, filters, min(PAGE, limit - len(found)), after)
            found += page["items"]
            after = page["next"]
            if after is None:
                break
        return found, after is not None

    async def _page(self, path: str, filters: dict[str, Any], limit: int, after: str | None) -> dict[str, Any]:
        query = {**filters, "limit": limit} | ({"after": after} if after else {})
        return await self._object("GET", path, query={name: str(value) for name, value in query.items()})

    async def _object(self, method: str, path: str, *, query: dict[str, str] | None = None) -> dict[str, Any]:
        value = await self._call(method, path, query=query)
        if not isinstance(value, dict):
            raise AdminRefused(f"{method} {path}: the answer of {self.base_url} is not the admin API's")
        return value

    async def _call(self, method: str, path: str, body: Any = None, *, query: dict[str, str] | None = None) -> Any:
        return (await self._answer(method, path, body, query=query))[1]

    async def _answer(
        self, method: str, path: str, body: Any = None, *, query: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        assert self._http is not None, "used outside its context"
        url = f"{self.base_url}/admin/v1/{path}"
        data = None if body is None else dumps(body)
        headers = None if body is None else {"Content-Type": "application/json"}
        try:
            async with self._http.request(
                method, url, params=query, data=data, headers=headers, allow_redirects=False
            ) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise AdminRefused(
                f"The ingress at {self.base_url} does not answer ({type(error).__name__}). Is it running? "
                "SITE_URI, or --url, says where it is looked for."
            ) from None
        if answer.status >= 300:
            raise AdminRefused(_words(method, path, answer.status, content), answer.status)
        return answer.status, _parsed(content)


def _quoted(segment: str) -> str:
    return quote(segment, safe="")


def _parsed(content: bytes) -> Any:
    try:
        return loads(content) if content else None
    except BadJson:
        return None


def _words(method: str, path: str, status: int, content: bytes) -> str:
    problem = _parsed(content)
    detail = problem.get("detail") or problem.get("title") if isinstance(problem, dict) else None
    if status == 401:
        detail = "ADMIN_TOKEN is not one that the running ingress knows"
    return f"{method} /admin/v1/{path}: {status}" + (f", {detail}" if detail else "")
