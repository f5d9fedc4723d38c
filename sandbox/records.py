"""Append-only records of everything that passed, on one counter, so that a checker never compares two clocks.

`order` counts webhooks, calls, token requests and changes, began and ended alike; `*_at` are `time.time()`.
A record whose end is `None` is still under way, or its other side never answered; a webhook ends when it is given up.
"""

import hashlib
import time

from msgspec import Struct, field


def fingerprint(secret: str) -> str:
    """The first 12 hex digits of its SHA-256: enough to tell tokens apart, useless to present."""
    return hashlib.sha256(secret.encode()).hexdigest()[:12] if secret else ""


class WebhookRecord(Struct, kw_only=True, rename="camel"):
    """One webhook sent, or lost on purpose (`lost`: never sent, `status` None)."""

    order_sent: int
    sent_at: float
    connection_id: int
    url: str
    """Its `apiUrl`."""
    posted_to: str
    location_id: str
    resource_id: str | None
    attribute_type: str
    cause: str
    lost: bool = False
    order_answered: int | None = None
    """When it was answered, or given up."""
    answered_at: float | None = None
    status: int | None = None
    delivery_id: str | None = None
    error: str = ""


class CallRecord(Struct, kw_only=True, rename="camel"):
    """One request to the `/v1` API; `order_ended` is taken right before the answer is written."""

    order_began: int
    began_at: float
    method: str
    url: str
    """Base URL, path and query as they came."""
    host: str
    """The Host header: where the caller believed to be."""
    token: str
    """Fingerprint of the bearer token, empty without one."""
    order_ended: int | None = None
    ended_at: float | None = None
    status: int | None = None
    fault: str = ""


class TokenRecord(Struct, kw_only=True, rename="camel"):
    """One `POST /api/token`; `presented` and `issued` are fingerprints of the code or refresh token."""

    order_began: int
    began_at: float
    grant_type: str = ""
    presented: str = ""
    issued: str = ""
    outcome: str = ""
    order_ended: int | None = None
    ended_at: float | None = None
    status: int | None = None
    fault: str = ""


class PlatformRecord(Struct, kw_only=True, rename="camel"):
    """One request of the stand-in, as a client of the platform: `exchange`, `refresh` or `check_connection`."""

    order_sent: int
    sent_at: float
    what: str
    connection_id: int
    url: str
    order_answered: int | None = None
    answered_at: float | None = None
    status: int | None = None
    error: str = ""


class ChangeRecord(Struct, kw_only=True, rename="camel"):
    """The world changed; `url` is the item's own."""

    order: int
    at: float
    kind: str
    url: str
    deleted: bool


class Violation(Struct, kw_only=True, rename="camel"):
    """Something the guide does not allow; `kind` is stable, `text` is for people and holds no secret."""

    order: int
    at: float
    kind: str
    text: str


class Snapshot(Struct, kw_only=True, rename="camel"):
    """All records, as the control API hands them out; `order` is the counter's last number."""

    order: int
    webhooks: list[WebhookRecord]
    calls: list[CallRecord]
    tokens: list[TokenRecord]
    platform: list[PlatformRecord]
    changes: list[ChangeRecord]
    violations: list[Violation]


class Records(Struct):
    """What happened. Openers append and return the record; closers fill in its end."""

    webhooks: list[WebhookRecord] = field(default_factory=list)
    calls: list[CallRecord] = field(default_factory=list)
    tokens: list[TokenRecord] = field(default_factory=list)
    platform: list[PlatformRecord] = field(default_factory=list)
    changes: list[ChangeRecord] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    last: int = 0

    def next(self) -> int:
        """The next number of the one counter."""
        self.last += 1
        return self.last

    def violation(self, kind: str, text: str) -> None:
        self.violations.append(Violation(order=self.next(), at=time.time(), kind=kind, text=text))

    def change(self, kind: str, url: str, deleted: bool) -> None:
        self.changes.append(ChangeRecord(order=self.next(), at=time.time(), kind=kind, url=url, deleted=deleted))

    def call_began(self, method: str, url: str, host: str, token: str) -> CallRecord:
        record = CallRecord(
            order_began=self.next(), began_at=time.time(), method=method, url=url, host=host, token=fingerprint(token)
        )
        self.calls.append(record)
        return record

    def token_began(self) -> TokenRecord:
        record = TokenRecord(order_began=self.next(), began_at=time.time())
        self.tokens.append(record)
        return record

    def ended(self, record: CallRecord | TokenRecord, status: int) -> None:
        record.order_ended, record.ended_at, record.status = self.next(), time.time(), status

    def platform_sent(self, what: str, connection_id: int, url: str) -> PlatformRecord:
        record = PlatformRecord(
            order_sent=self.next(), sent_at=time.time(), what=what, connection_id=connection_id, url=url
        )
        self.platform.append(record)
        return record

    def answered(self, record: WebhookRecord | PlatformRecord, status: int | None) -> None:
        """With a status, or in vain."""
        record.order_answered, record.answered_at, record.status = self.next(), time.time(), status

    def snapshot(self, after: int = 0) -> Snapshot:
        """Every record of which something happened after number `after`."""
        return Snapshot(
            order=self.last,
            webhooks=[r for r in self.webhooks if _latest(r.order_sent, r.order_answered) > after],
            calls=[r for r in self.calls if _latest(r.order_began, r.order_ended) > after],
            tokens=[r for r in self.tokens if _latest(r.order_began, r.order_ended) > after],
            platform=[r for r in self.platform if _latest(r.order_sent, r.order_answered) > after],
            changes=[r for r in self.changes if r.order > after],
            violations=[r for r in self.violations if r.order > after],
        )


def _latest(began: int, ended: int | None) -> int:
    return ended or began
