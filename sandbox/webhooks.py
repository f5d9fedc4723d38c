"""Builds the guide's webhook and sends it: once, with no retry, its outcome in the records.

Change → for each connection that has the location matched: body → hash → POST. An answer is only recorded; a 401
makes the platform side refresh its tokens, so that later webhooks get through.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import aiohttp

from sandbox import hashing
from sandbox.config import Blank, SandboxConfig
from sandbox.records import WebhookRecord
from sandbox.state import Connection, Sandbox
from sandbox.world import Change

Telling = tuple[Connection, Change]
Freshen = Callable[[Connection], Awaitable[None]]


def body(connection: Connection, change: Change, api_url: str, config: SandboxConfig) -> dict[str, Any]:
    """The webhook as the guide prints it, without `hash`; ids are the platform's, null for what it has not matched."""
    meta: dict[str, Any] = {
        "resourceId": connection.resources.get(change.resource or ""),
        "attributeType": change.attribute,
        "resourceType": change.resource_type,
        "apiUrl": api_url,
    }
    made: dict[str, Any] = {
        "connectionId": connection.connection_id,
        "webhookType": "data",
        "locationId": connection.locations.get(change.location),
        "metaData": meta,
    }
    if config.later_schema:
        meta["syncarooId"] = change.path.rpartition("/")[2]
        made |= {"action": "new", "actionCallback": api_url} if change.new else {}
    return _blanked(made, config.blank) | {"metaData": _blanked(meta, config.blank)}


def _blanked(members: dict[str, Any], blank: Blank) -> dict[str, Any]:
    if blank is Blank.ABSENT:
        return {name: value for name, value in members.items() if value is not None}
    return {name: ("" if value is None and blank is Blank.EMPTY else value) for name, value in members.items()}


class Sender:
    """Sends webhooks; `freshen` makes sure that a connection's token is live."""

    def __init__(self, sandbox: Sandbox, http: aiohttp.ClientSession, freshen: Freshen) -> None:
        self._sandbox = sandbox
        self._http = http
        self._freshen = freshen
        self._held: list[tuple[Connection, Change, str]] = []

    async def tell(self, change: Change, *, cause: str, lost: bool = False, only: int | None = None) -> None:
        """Every connection that has the change's location matched (or `only` that one) hears of it."""
        await self.tell_all([(c, change) for c in self._audience(change, only)], cause=cause, lost=lost)

    async def tell_all(
        self, told: Iterable[Telling], *, cause: str, lost: bool = False, concurrency: int | None = None
    ) -> None:
        """Send all of these, in this order as far as `concurrency` (by default the configured one) allows."""
        slots = asyncio.Semaphore(concurrency or self._sandbox.config.concurrency)

        async def one(connection: Connection, change: Change) -> None:
            async with slots:
                await self._one(connection, change, cause, lost)

        await asyncio.gather(*(one(connection, change) for connection, change in told))

    def _audience(self, change: Change, only: int | None) -> list[Connection]:
        return [
            c
            for c in self._sandbox.connections.values()
            if c.state == "confirmed" and change.location in c.locations and only in (None, c.connection_id)
        ]

    async def _one(self, connection: Connection, change: Change, cause: str, lost: bool) -> None:
        """One webhook with the faults that decide whether and how often it travels."""
        url = self._sandbox.url(change.path)
        faults = self._sandbox.faults
        if lost or faults.take("webhook_lost", url):
            self._record(connection, change, url, cause).lost = True
            return
        times = 2 if faults.take("webhook_double", url) else 1
        if faults.take("webhook_reorder", url):
            self._held += [(connection, change, cause)] * times
            return
        for _ in range(times):
            await self.send(connection, change, cause=cause)
        await self.release()

    async def release(self) -> None:
        """Send what was held back."""
        held, self._held = self._held, []
        for connection, change, cause in held:
            await self.send(connection, change, cause=cause)

    async def send(self, connection: Connection, change: Change, *, cause: str) -> WebhookRecord:
        """Send one webhook, spoilt by whatever faults are open for it."""
        await self._freshen(connection)
        faults = self._sandbox.faults
        url = self._sandbox.url(change.path)
        if fault := faults.take("webhook_api_url", url):
            url = fault.url or url + "/0"
        record = self._record(connection, change, url, cause)
        bad_token = faults.take("webhook_bad_token", url) is not None
        token = "not-a-token" if bad_token else connection.access_token
        await self._post(record, self._signed(body(connection, change, url, self._sandbox.config), url), token)
        if record.status == 401 and not bad_token:
            connection.expires_at = 0.0
        return record

    async def send_raw(self, connection: Connection, raw: bytes, token: str | None, api_url: str) -> WebhookRecord:
        """Send these very bytes; `token` None: the connection's own, empty: no Authorization header."""
        change = Change(kind="raw", path="", location="", resource=None, resource_type=None, attribute="")
        record = self._record(connection, change, api_url, "raw")
        await self._post(record, raw, connection.access_token if token is None else token)
        return record

    def _signed(self, made: dict[str, Any], url: str) -> bytes:
        config, faults = self._sandbox.config, self._sandbox.faults
        if faults.take("webhook_no_hash", url):
            return hashing.signed(made, "", "")
        key = "wrong " + config.signing_key if faults.take("webhook_wrong_hash", url) else config.signing_key
        return hashing.signed(made, config.hash_recipe, key)

    def _record(self, connection: Connection, change: Change, url: str, cause: str) -> WebhookRecord:
        record = WebhookRecord(
            order_sent=self._sandbox.records.next(),
            sent_at=time.time(),
            connection_id=connection.connection_id,
            url=url,
            posted_to=self._sandbox.config.webhook_uri,
            location_id=connection.locations.get(change.location, ""),
            resource_id=connection.resources.get(change.resource or ""),
            attribute_type=change.attribute,
            cause=cause,
        )
        self._sandbox.records.webhooks.append(record)
        return record

    async def _post(self, record: WebhookRecord, raw: bytes, token: str) -> None:
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        timeout = aiohttp.ClientTimeout(total=self._sandbox.config.webhook_timeout)
        try:
            async with self._http.post(
                record.posted_to, data=raw, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                record.delivery_id = _delivery_id(await answer.read())
                self._sandbox.records.answered(record, answer.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            record.error = type(error).__name__
            self._sandbox.records.answered(record, None)


def _delivery_id(answer: bytes) -> str | None:
    """`deliveryId` of a JSON answer; nothing is demanded of it, the guide does not describe it."""
    try:
        found = json.loads(answer).get("deliveryId")
    except (ValueError, AttributeError):
        return None
    return None if found is None else str(found)
