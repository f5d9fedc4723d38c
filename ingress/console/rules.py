"""What the console shows, in words and short values. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from common.clock import length
from common.codec import dumps, pretty
from common.foreign import harmless, name_of
from common.pointer import tokens_of, value_at
from schemas.messages import Json

ROOT = "/console"
Mood = Literal["good", "slow", "bad", "quiet"]

MOST_DIFFERENCES = 6
LONGEST_NAME = 80
LONGEST_VALUE = 160
LONGEST_BODY = 20_000


def place_of(text: str) -> str:
    """Where somebody was going on the console, as a path of ours; anything else is its front page."""
    is_ours = text == ROOT or text.startswith((f"{ROOT}/", f"{ROOT}?"))
    return text if is_ours and text.isascii() and text.isprintable() and "\\" not in text else ROOT


def since(moment: datetime, now: datetime) -> str:
    """How long ago, both by the store's clock."""
    return length(max(0.0, (now - moment).total_seconds()))


@dataclass(frozen=True)
class Difference:
    """One member that changed; None: it was, or is, not there."""

    name: str
    old: str | None
    new: str | None


def differences(patch: Sequence[Mapping[str, Any]], previous: Json, most: int) -> list[Difference]:
    """The first so many of a change, in short texts; `patch` is RFC 6902 from `previous` on."""
    return [_difference(operation, previous) for operation in patch[:most]]


def _difference(operation: Mapping[str, Any], previous: Json) -> Difference:
    old = None if operation["op"] == "add" else short(value_at(previous, operation["path"]))
    new = None if operation["op"] == "remove" else short(operation.get("value"))
    return Difference(harmless("/".join(tokens_of(operation["path"]))) or "all of it", old, new)


def short(value: Json) -> str:
    """A value as JSON on one line, cut where it is too long."""
    text = harmless(dumps(value).decode())
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def title_of(body: Json) -> str:
    """How an item calls itself, not too long; empty: it does not."""
    return harmless(name_of(body)[:LONGEST_NAME])


@dataclass(frozen=True)
class Shown:
    """A body as indented JSON; `cut` says that there is more, `size` is that of all of it in characters."""

    text: str
    cut: bool
    size: int


def shown(body: Json, *, whole: bool = False) -> Shown:
    """A body to look into; cut after 20,000 characters unless all of it is wanted."""
    text = body if isinstance(body, str) else pretty(body)
    kept = text if whole else text[:LONGEST_BODY]
    return Shown("\n".join(map(harmless, kept.split("\n"))), len(kept) < len(text), len(text))


@dataclass(frozen=True)
class Told:
    """An event as a row of the console; `detail` is what there is to say when nothing has changed to anything."""

    event_id: str
    position: int
    at: datetime
    type: str
    connection_id: int
    subject: str
    kind: str
    """The attribute type of a listing; else empty."""
    word: str
    mood: Mood
    name: str
    listing_id: str | None
    version: int | None
    reason: str
    differences: Sequence[Difference]
    more: int
    detail: str


_WORDS: Mapping[str, Mood] = {
    "created": "good", "updated": "quiet", "deleted": "slow", "confirmed": "good", "revoked": "slow",
    "active": "good", "needs_authorisation": "bad",
}  # fmt: skip


@dataclass(frozen=True)
class Kept:
    """An event of the store; `data` is None where it is too large to be shown here."""

    event_id: str
    position: int
    at: datetime
    type: str
    connection_id: int
    subject: str
    listing_id: str | None
    version: int | None
    headers: Mapping[str, str]
    data: Mapping[str, Any] | None


def told(event: Kept) -> Told:
    """What there is to say of it."""
    data = event.data or {}
    word = str(data.get("change") or data.get("state") or event.headers.get("change") or event.type.rpartition(".")[2])
    patch = data.get("patch") or []
    return Told(
        event_id=event.event_id,
        position=event.position,
        at=event.at,
        type=event.type,
        connection_id=event.connection_id,
        subject=harmless(event.subject),
        kind=event.headers.get("attributeType", ""),
        word=word.replace("_", " "),
        mood="bad" if event.type == "sync.held" else _WORDS.get(word, "quiet"),
        name=title_of(data.get("previous") if data.get("current") is None else data["current"]),
        listing_id=event.listing_id,
        version=event.version,
        reason=str(data.get("reason") or ""),
        differences=differences(patch, data.get("previous"), MOST_DIFFERENCES) if word == "updated" else (),
        more=max(0, len(patch) - MOST_DIFFERENCES) if word == "updated" else 0,
        detail=_detail(event),
    )


def _detail(event: Kept) -> str:
    match event.type, event.data:
        case _, None:
            return "too large to be shown here: open its story"
        case "sync.held", data if data is not None:
            return f"{data.get('held')} of {data.get('live')} listings vanished: held for you"
        case "connection.changed", data if data is not None:
            return f"user {harmless(str(data.get('userId')))}"
        case "grant.changed", _:
            return "our access to Syncaroo"
    return ""


@dataclass(frozen=True)
class Choice:
    """Which events somebody wants to see; None: all."""

    connection_id: int | None = None
    kind: str | None = None

    def wants(self, event: Told) -> bool:
        """Whether it is one of them."""
        return self.connection_id in (None, event.connection_id) and self.kind in (None, event.kind)
