"""A listing's history as a story: webhooks, attempts and what each of them changed, the oldest first. Pure.

Numbers of the store's one sequence order it; times are for the reader only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Webhook:
    """The latest webhook that the attempts after it answer."""

    at: datetime
    """When it was received; when that is not known, when it was taken up or the attempt ended."""
    late: timedelta
    """How much later its target became wanted, as far as that is known."""
    delivery_id: str | None
    number: int


@dataclass(frozen=True)
class Look:
    """Attempts that came to the same one after another, mostly one, and the versions that they led to."""

    attempts: Sequence[Json]
    changes: Sequence[Json] = ()

    @property
    def last(self) -> Json:
        """The latest."""
        return self.attempts[-1]


@dataclass(frozen=True)
class Change:
    """A version that no attempt of the history led to: `unmapped`, or a worker that died before it had settled."""

    change: Json


Entry = Webhook | Look | Change


def story_of(history: Sequence[Json]) -> list[Entry]:
    """The entries of a history that is newest first."""
    return list(_folded(_entries(list(reversed(history)))))


def _entries(items: Sequence[Json]) -> Iterator[Entry]:
    attempts = [item for item in items if item["kind"] == "attempt"]
    changes = [item for item in items if item["kind"] == "change"]
    asked: dict[str, int] = {}
    for item in items:  # in the order of their numbers: an attempt comes before what it changed
        if item["kind"] == "change":
            if not any(_led_to(attempt, item) for attempt in attempts):
                yield Change(item)
            continue
        if item["reason"] == "webhook" and item["asked"] > asked.get(item["url"], 0):
            asked[item["url"]] = item["asked"]
            yield _webhook(item)
        yield Look([item], [change for change in changes if _led_to(item, change)])


def _led_to(attempt: Json, change: Json) -> bool:
    """Each page of an attempt has numbers of its own; a list told as one began with its first page, perhaps earlier."""
    cause = change["cause"] or {}
    same = cause.get("url") == attempt["url"]
    return same and bool(attempt["started"] <= cause["ended"] <= attempt["ended"])


def _webhook(attempt: Json) -> Webhook:
    received_at, taken_up = attempt["receivedAt"], attempt["askedAt"]
    return Webhook(
        at=moment_of(received_at or taken_up or attempt["at"]),
        late=moment_of(taken_up) - moment_of(received_at) if received_at and taken_up else timedelta(0),
        delivery_id=attempt["deliveryId"],
        number=attempt["asked"],
    )


def _folded(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Three looks or more that came to the same, one after another, are one."""
    for how, group in groupby(entries, _how):
        run = list(group)
        if how is None or len(run) < 3:
            yield from run
        else:
            yield Look([entry.last for entry in run if isinstance(entry, Look)])


def _how(entry: Entry) -> Any:
    """What looks that may be told as one have in common; None: this one is told by itself."""
    if not isinstance(entry, Look) or entry.changes:
        return None
    attempt = entry.last
    if attempt["outcome"] == "answered" and not attempt["detail"]:
        return "quiet"
    return attempt["outcome"], attempt["url"], attempt["status"], attempt["detail"]


def moment_of(text: str) -> datetime:
    """A time of the API."""
    return datetime.fromisoformat(text)
