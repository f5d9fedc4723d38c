"""The store's tables. Imported by stores and migrations only; everything else speaks values.

Times are aware UTC (`UtcDateTime`), read from the store's clock. Numbers (`wanted`, `began`, …) come from the store's
one sequence, so that they order what happened without comparing the clocks of two hosts.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Dialect, Float, Index, Integer, LargeBinary, Table, Text, text
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

__all__ = ["NOBODY", "SYNCAROO_ACCOUNT", "SQLModel", "UtcDateTime", "table_of"]


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in and out on both databases (SQLite would give back naive ones)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("a naive datetime reached the store")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def table_of(model: type[SQLModel]) -> Table:
    """The Core table of a model: statements are written with Core, not with ORM objects."""
    table: Table = model.__table__  # type: ignore[attr-defined]  # SQLModel adds it; its stubs do not say so
    return table


def _big(default: int | None = None, **more: Any) -> Any:
    server = None if default is None else text(str(default))
    return Field(default=default, sa_column=Column(BigInteger, nullable=default is None, server_default=server, **more))


def _key() -> Any:
    return Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))


def _text(nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(Text, nullable=nullable))


def _time(nullable: bool = True) -> Any:
    return Field(default=None, sa_column=Column(UtcDateTime, nullable=nullable))


# --- the four tables that carry the flow --------------------------------------------------------------------------


class TargetRow(SQLModel, table=True):
    """One URL of one connection that was ever wanted. Due while `wanted > answered`."""

    __tablename__ = "target"
    __table_args__ = (
        Index("ix_target_due", "priority", "turn", sqlite_where=text("wanted > answered"),
              postgresql_where=text("wanted > answered")),
        Index("ix_target_put_off", "not_before", sqlite_where=text("wanted > answered AND turn = 0"),
              postgresql_where=text("wanted > answered AND turn = 0")),
        Index("ix_target_recheck", "recheck_at", sqlite_where=text("recheck_at IS NOT NULL"),
              postgresql_where=text("recheck_at IS NOT NULL")),
    )  # fmt: skip

    connection_id: int = _key()
    url: str = Field(sa_column=Column(Text, primary_key=True))
    host: str = _text()
    attribute_type: str | None = _text(nullable=True)
    resource_type: str | None = _text(nullable=True)
    location_id: str | None = _text(nullable=True)
    resource_id: str | None = _text(nullable=True)
    delivery_id: str | None = _text(nullable=True)
    """The latest webhook for it."""
    traceparent: str | None = _text(nullable=True)
    """The traces of the webhooks that it was last wanted by, the latest first, with spaces between."""
    wanted: int = _big(0)
    asked: int = _big(0)
    """The number of the latest webhook (`wanted` also counts resyncs)."""
    asked_at: datetime | None = _time()
    """When the latest webhook for it was taken up."""
    started: int = _big(0)
    answered: int = _big(0)
    priority: int = _big(0)
    """0 webhook, 2 a collection that a resync reads, 3 an item that it reads; second looks are due by `recheck_at`."""
    turn: int = _big(0)
    """Its place among the due of its priority: each connection's next one comes after everybody else's next one.
    0: put off, it gets one when its time has come."""
    reason: str = _text()
    not_before: datetime | None = _time()
    recheck_at: datetime | None = _time()
    lease_owner: str | None = _text(nullable=True)
    lease_until: datetime | None = _time()
    attempts: int = _big(0)
    last_status: int | None = _big()
    last_error: str | None = _text(nullable=True)
    walk: str | None = _text(nullable=True)
    """JSON: how far the walk over its pages has come, to go on after a crash."""
    walk_at: datetime | None = _time()


class AttemptRow(SQLModel, table=True):
    """One attempt to answer a target: what was asked, when, with which numbers, and what came of it."""

    __tablename__ = "attempt"
    __table_args__ = (
        Index("ix_attempt_path", "connection_id", "path", "started"),
        Index("ix_attempt_at", "at"),
    )

    connection_id: int = _key()
    url: str = Field(sa_column=Column(Text, primary_key=True))
    started: int = _key()
    path: str = _text()
    """What all spellings of the URL share; a listing's own path, or its scope."""
    ended: int = _big(0)
    asked: int = _big(0)
    reason: str = _text()
    delivery_id: str | None = _text(nullable=True)
    attempt: int = _big(0)
    outcome: str = _text()
    """answered, gone, put_off, parked, gave_up."""
    status: int | None = _big()
    pages: int = _big(0)
    detail: str | None = _text(nullable=True)
    at: datetime = _time(nullable=False)


class SuspectRow(SQLModel, table=True):
    """A listing that may have vanished, until an answer settles it or a person decides."""

    __tablename__ = "suspect"
    __table_args__ = (Index("ix_suspect_state", "connection_id", "state"),)

    connection_id: int = _key()
    listing_id: str = Field(sa_column=Column(Text, primary_key=True))
    url: str | None = _text(nullable=True)
    """Its own URL, which is asked; null: it has none, and a second complete walk decides."""
    state: str = _text()
    """absent (from one complete walk), pending (being asked), held (a person decides), approved (a person agreed)."""
    walk: int = _big(0)
    """The number of the walk, or the answer, that missed it."""
    since: datetime = _time(nullable=False)


class ListingRow(SQLModel, table=True):
    """One listing: the last known truth, its version, and the numbers of the answer that told it."""

    __tablename__ = "listing"
    __table_args__ = (
        Index("ix_listing_id", "listing_id", unique=True),
        Index("ix_listing_path", "connection_id", "own_path"),
        Index("ix_listing_scope", "connection_id", "scope"),
    )

    connection_id: int = _key()
    listing_id: str = Field(sa_column=Column(Text, primary_key=True))
    scope: str = _text()
    item_id: str = _text()
    own_path: str = _text()
    """Path of the URL that is the item's own: where it was read alone, else its collection's path and its id."""
    own_url: str | None = _text(nullable=True)
    attribute_type: str = _text()
    location_id: str | None = _text(nullable=True)
    resource_id: str | None = _text(nullable=True)
    resource_type: str | None = _text(nullable=True)
    body: str | None = _text(nullable=True)
    """Canonical JSON of the item; null: deleted, or never seen (version 0)."""
    written_by: str | None = _text(nullable=True)
    """`item` or `list`: the shape of the answer that wrote the body."""
    version: int = _big(0)
    began: int = _big(0)
    ended: int = _big(0)
    own_began: int = _big(0)
    """Where the latest answer from its own URL began: a list's later one does not stand for it."""
    asked: int = _big(0)
    """Number of the latest webhook for the item itself that an answer has answered."""
    unmapped: int = _big(0)
    """Number of the webhook that unmapped it; 0: mapped."""
    deleted: bool = Field(default=False, nullable=False)
    changed_at: datetime | None = _time()


class EventRow(SQLModel, table=True):
    """One version of a listing or one change of state: outbox, history and replay in one. Append-only."""

    __tablename__ = "event"
    __table_args__ = (
        Index("ix_event_unpublished", "position", sqlite_where=text("published_at IS NULL"),
              postgresql_where=text("published_at IS NULL")),
        Index("ix_event_created", "created_at", "event_id"),
        Index("ix_event_position", "position"),
        Unique("connection_id", "listing_id", "version", name="uq_event_version"),
    )  # fmt: skip

    connection_id: int = _key()
    """0: not about one connection."""
    event_id: str = Field(sa_column=Column(Text, primary_key=True))
    position: int = _big(0)
    type: str = _text()
    schema_version: int = Field(default=1, sa_column=Column(Integer, nullable=False, server_default=text("1")))
    """That of the schema by which `data` was written: it waits and is replayed under that one for ever."""
    subject: str = _text()
    listing_id: str | None = _text(nullable=True)
    version: int | None = _big()
    data: str = _text()
    """JSON of the event's data, as published."""
    headers: str = _text()
    """JSON map of the AMQP headers."""
    cause: str | None = _text(nullable=True)
    """JSON: the attempt (URL, numbers, status) that led to it."""
    traceparent: str | None = _text(nullable=True)
    """The trace that it is of."""
    created_at: datetime = _time(nullable=False)
    published_at: datetime | None = _time()


SYNCAROO_ACCOUNT = "syncaroo"
"""The key of the one grant that there is: the platform's own account with Syncaroo."""


class GrantRow(SQLModel, table=True):
    """Our access to one Syncaroo account: the encrypted token pair, and the lease of whoever is renewing it."""

    __tablename__ = "grant"

    account: str = Field(sa_column=Column(Text, primary_key=True))
    state: str = _text()
    """none, active, needs_authorisation."""
    sealed_pair: str | None = _text(nullable=True)
    rt_version: int = _big(0)
    refused_at: datetime | None = _time()
    """When Syncaroo's API last refused a token before its time."""
    expires_at: datetime | None = _time()
    refresh_at: datetime | None = _time()
    lease_owner: str | None = _text(nullable=True)
    lease_until: datetime | None = _time()
    intent: str | None = _text(nullable=True)
    """What the lease's holder is about to send, for people: `refresh` or `code`; stays after a crash."""
    attempts: int = _big(0)
    last_error: str | None = _text(nullable=True)


# --- around them ---------------------------------------------------------------------------------------------------


class BudgetRow(SQLModel, table=True):
    """The token bucket and the back-off of one API host, debited by the claim: N processes share one budget."""

    __tablename__ = "budget"

    host: str = Field(sa_column=Column(Text, primary_key=True))
    tokens: float = Field(default=0.0, nullable=False)
    resync_tokens: float = Field(default=0.0, sa_column=Column(Float, nullable=False, server_default=text("0")))
    """The part of the budget that resyncs may still use."""
    refilled_at: datetime = _time(nullable=False)
    blocked_until: datetime | None = _time()
    turn: int = _big(0)
    resync_turn: int = _big(0)
    """The latest turns that were claimed: where a connection that was idle begins (webhooks; resyncs)."""


class UserRow(SQLModel, table=True):
    """A user of the platform who may connect; the password is an argon2id hash, null with an identity provider."""

    __tablename__ = "user"

    user_id: str = Field(sa_column=Column(Text, primary_key=True))
    login: str | None = Field(default=None, sa_column=Column(Text, unique=True, nullable=True))
    password_hash: str | None = _text(nullable=True)
    created_at: datetime = _time(nullable=False)


class InventoryRow(SQLModel, table=True):
    """One of the platform's own locations, as check_connection shows it."""

    __tablename__ = "inventory"

    user_id: str = Field(sa_column=Column(Text, primary_key=True))
    location_id: str = Field(sa_column=Column(Text, primary_key=True))
    body: str = _text()


class ConnectionRow(SQLModel, table=True):
    """A user's connection to Syncaroo: authorised (consent given), confirmed (checked), revoked."""

    __tablename__ = "connection"

    connection_id: int = _key()
    user_id: str = _text()
    """Empty (`NOBODY`): the user was erased; the number stays, revoked, and is nobody's for ever."""
    state: str = _text()
    created_at: datetime = _time(nullable=False)
    confirmed_at: datetime | None = _time()
    revoked_at: datetime | None = _time()


NOBODY = ""
"""Whose connection it is once its user was erased; no user's id is empty."""


class ErasureRow(SQLModel, table=True):
    """A connection whose user was erased, while something of it is still kept: the next batch goes on from here."""

    __tablename__ = "erasure"

    connection_id: int = _key()
    since: datetime = _time(nullable=False)


class FeedRow(SQLModel, table=True):
    """A connection's stream of webhooks as the workers know it: when it was heard, and when it is read again."""

    __tablename__ = "feed"

    connection_id: int = _key()
    turn: int = _big(0)
    resync_turn: int = _big(0)
    """The latest turns that its targets were given (webhooks; resyncs)."""
    heard_at: datetime | None = _time()
    """When its latest webhook was taken up."""
    bursts: int = _big(0)
    """How many times it was heard again after a quiet while."""
    usual_quiet: float | None = Field(default=None, sa_column=Column(Float, nullable=True))
    """Seconds that it is usually quiet between bursts, at the longest; null: not known yet."""
    silent_since: datetime | None = _time()
    """Set while it is quiet for unusually long."""
    first_read: bool = Field(default=False, nullable=False)
    """Whether it was read again after its first burst."""
    missed_at: datetime | None = _time()
    """When a webhook of it was known to be lost, and everything is not read again since."""
    resync_at: datetime | None = _time()
    """When everything known of it is read again; null: not planned yet."""
    reading_until: datetime | None = _time()
    """Until then a process is making its targets wanted; it dies, and another begins again."""


class RefusedRow(SQLModel, table=True):
    """A connection whose webhooks had to be refused, or found nobody, and that is not resynced yet."""

    __tablename__ = "refused"

    connection_id: int = _key()
    since: datetime = _time(nullable=False)
    lease_until: datetime | None = _time()
    """Until then the ingress that has taken it over is publishing its resync."""


class BeatRow(SQLModel, table=True):
    """Moments that are kept by name: when a kind of process (`ingress`) was last there, who leads (`relay`,
    `history`) had its last pulse, and somebody last looked at the store's clock (`clock`)."""

    __tablename__ = "beat"

    name: str = Field(sa_column=Column(Text, primary_key=True))
    at: datetime = _time(nullable=False)


class CodeRow(SQLModel, table=True):
    """An authorization code we issued (its hash), bound to client, connection, user and redirect."""

    __tablename__ = "code"

    code_hash: str = Field(sa_column=Column(Text, primary_key=True))
    connection_id: int = _big(0)
    user_id: str = _text()
    client_id: str = _text()
    redirect_uri: str = _text()
    expires_at: datetime = _time(nullable=False)
    used_at: datetime | None = _time()
    family: str | None = _text(nullable=True)


class FamilyRow(SQLModel, table=True):
    """The tokens issued from one code: nothing secret, only which generation is current."""

    __tablename__ = "family"

    family: str = Field(sa_column=Column(Text, primary_key=True))
    connection_id: int = _big(0)
    generation: int = _big(0)
    rotated_at: datetime = _time(nullable=False)
    previously_rotated_at: datetime | None = _time()
    """The rotation before that; None when there was none, or when it was before this was written down."""
    expires_at: datetime = _time(nullable=False)
    revoked_at: datetime | None = _time()


class ConnectAttemptRow(SQLModel, table=True):
    """One admin's way through Syncaroo's consent: its `state` is single use, its outcome is shown on /confirm."""

    __tablename__ = "connect_attempt"

    attempt_id: str = Field(sa_column=Column(Text, primary_key=True))
    created_at: datetime = _time(nullable=False)
    used_at: datetime | None = _time()
    handed_on_at: datetime | None = _time()
    """When the broker had confirmed the code; until then it may have got lost with its process."""
    outcome: str = _text()
    """pending, active, refused, failed."""
    detail: str | None = _text(nullable=True)


class ParkedRow(SQLModel, table=True):
    """A message or target that cannot be processed: its reason, and what is needed to replay it."""

    __tablename__ = "parked"
    __table_args__ = (Index("ix_parked_queue", "queue", "parked_id"),)

    parked_id: str = Field(sa_column=Column(Text, primary_key=True))
    queue: str = _text()
    reason: str = _text()
    connection_id: int | None = _big()
    routing_key: str = _text()
    schema_name: str = _text()
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    attempts: int = Field(default=0, sa_column=Column(Integer, nullable=False))
    parked_at: datetime = _time(nullable=False)
    traceparent: str | None = _text(nullable=True)
    """The trace that it is of, and that its replay goes on with."""


class FactRow(SQLModel, table=True):
    """What the store remembers about its environment (`SYNCAROO_BASE_URL`, `EVENT_SOURCE`)."""

    __tablename__ = "fact"

    name: str = Field(sa_column=Column(Text, primary_key=True))
    value: str = _text()


class SequenceRow(SQLModel, table=True):
    """SQLite's stand-in for PostgreSQL's `number` sequence; one row."""

    __tablename__ = "sequence"

    name: str = Field(sa_column=Column(Text, primary_key=True))
    value: int = _big(0)
