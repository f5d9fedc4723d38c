"""The ingress' application in this process, with a broker that can be told how to behave."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography.fernet import Fernet

from common.access_tokens import AccessTokens
from common.broker.outgoing import Outgoing
from common.broker.publisher import PUBLISH_SECONDS
from common.broker.topology import STAGES, dead_key
from common.codec import decode
from common.errors import BrokerUnavailable
from ingress.app import SECTIONS, Settings
from schemas.messages import REGISTRY, Message

CONNECTION = 99
PLATFORM_SECRET = "platform-secret-of-the-tests"
KEY = Fernet.generate_key().decode()


@dataclass
class FakeBroker:
    """Keeps what is published, and refuses what the real one would refuse: an address that no queue is bound to.

    `down` refuses; `confirm` holds every confirm back while it is cleared; `missing` is what a check does not find.
    """

    published: list[Outgoing] = field(default_factory=list)
    down: bool = False
    missing: str | None = None
    confirm: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    asked: list[float] = field(default_factory=list)
    checks: int = 0

    def __post_init__(self) -> None:
        self.confirm.set()

    @property
    def ready(self) -> bool:
        return not self.down

    async def depths(self, queues: Sequence[str], *, seconds: float = 2.0) -> dict[str, int]:
        if self.down:
            raise BrokerUnavailable("broker: down")
        return dict.fromkeys(queues, 0)

    async def publish(self, message: Outgoing, *, seconds: float = PUBLISH_SECONDS) -> None:
        assert message.exchange == "syncaroo.work"
        stages = [f"{stage}.{shard}" for stage in STAGES for shard in range(64)]
        assert message.routing_key in [*stages, *map(dead_key, STAGES)], message.routing_key
        assert message.headers["schema"] in REGISTRY
        self.asked.append(seconds)
        if self.down:
            raise BrokerUnavailable("broker: down")
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self.confirm.wait()
        except TimeoutError:
            raise BrokerUnavailable("broker: TimeoutError") from None
        finally:
            self.waiting -= 1
        self.published.append(message)

    async def check(self, queues: Sequence[str], *, seconds: float = 2.0) -> None:
        self.checks += 1
        assert "syncaroo.fetch" in queues
        if self.down or self.missing in queues:
            raise BrokerUnavailable("broker: down" if self.down else "broker: a queue is missing; run `gateway setup`")

    def messages(self) -> list[tuple[str, Message]]:
        """Routing key's stage (or `dead.fetch`) and message, as they were published."""
        return [(_stage(one), decode(one.body, REGISTRY[one.headers["schema"]])) for one in self.published]

    def reasons(self) -> list[str]:
        return [one.headers["reason"] for one in self.published if "reason" in one.headers]


def _stage(message: Outgoing) -> str:
    return message.routing_key if message.routing_key.startswith("dead.") else message.routing_key.partition(".")[0]


def settings(database_url: str = "sqlite+aiosqlite:////nonexistent/gateway.db", **changes: Any) -> Settings:
    """Complete settings; `changes` by the names of the fields. Without a database, as webhooks need none."""
    values: dict[str, Any] = {
        "amqp_url": "amqp://127.0.0.1:1/",
        "database_url": database_url,
        "secret_keys": KEY,
        "admin_token": "operator-of-the-tests",
        "platform_client_id": "syncaroo",
        "platform_client_secret": PLATFORM_SECRET,
        "syncaroo_client_id": "platform",
        "syncaroo_client_secret": "secret-at-syncaroo",
        **changes,
    }
    sections: list[Any] = [
        section(**{name: values[name] for name in section.model_fields if name in values}) for section in SECTIONS
    ]
    return Settings(*sections)


def bearer(connection_id: int = CONNECTION, *, age: int = 0, family: str = "family", key: str = KEY) -> dict[str, str]:
    """The header of an access token issued `age` seconds ago."""
    now = int(datetime.now(UTC).timestamp())
    token = AccessTokens([key], 3600).issue(connection_id, family, now - age)
    return {"Authorization": f"Bearer {token}"}


def webhook(**changes: Any) -> dict[str, Any]:
    """The guide's webhook; a member set to `...` is left out."""
    body: dict[str, Any] = {
        "connectionId": CONNECTION,
        "webhookType": "data",
        "locationId": "1198",
        "metaData": {
            "resourceId": "19284",
            "attributeType": "resources",
            "resourceType": "meeting-room",
            "apiUrl": "https://api.syncaroo.com/v1/locations/12/resources/7",
        },
        "hash": "XXXX",
        **changes,
    }
    return {name: value for name, value in body.items() if value is not ...}
