"""Requests for snapshots and replays: what is served, how one goes on, and in which order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.broker.consumer import Delivery
from common.broker.direct import NoSuchQueue, QueueFull
from common.broker.outgoing import Outgoing
from common.codec import dumps, loads
from common.errors import BrokerUnavailable, Permanent, StoreUnavailable
from common.parking import parked_from
from ops.moments import EARLIEST, moment_of, parse_when
from schemas.events import ListingSnapshot, dataschema_of
from schemas.messages import SnapshotPosition, SnapshotRequested, WebhookReceived
from workers.relay.replay import Replay, ReplayStopped, in_order
from workers.relay.rules import PendingEvent
from workers.relay.snapshot_rules import after, end_on_the_wire, request_in, sent_by, state_on_the_wire
from workers.relay.snapshots import Part, Snapshots
from workers.relay.store.pages import fitting
from workers.relay.store.past import Count, Found, Told, Wanted
from workers.relay.store.snapshots import Page

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LISTING = ListingSnapshot(
    listing_id="l", connection_id=99, attribute_type="rates", item_id="1", location_id=None, resource_id=None,
    resource_type=None, version=4, current=msgspec.Raw(b"null"), deleted=True,
)  # fmt: skip


def wanted(**members: Any) -> SnapshotRequested:
    return SnapshotRequested(**{"to": "q", **members})


@pytest.mark.parametrize(
    "request_",
    [
        wanted(),
        wanted(to="q" * 255),
        wanted(to="räume/für alle"),
        wanted(to="amq.gen-x"),
        wanted(to="not.syncaroo.fetch"),
        wanted(connection_id=-(2**63) + 1, location_id="1198", attribute_type="extras", snapshot_id="s" * 128),
    ],
)
def test_what_is_served(request_: SnapshotRequested) -> None:
    assert msgspec.structs.replace(request_in(request_), snapshot_id=request_.snapshot_id) == request_


@pytest.mark.parametrize(
    ("spelled", "kind"),
    [("resources", "resources"), ("Resource", "resources"), ("RATE", "rates"), (" availability ", "availability")],
)
def test_a_kind_may_be_spelled_as_everywhere_else(spelled: str, kind: str) -> None:
    assert request_in(wanted(attribute_type=spelled)).attribute_type == kind


def test_a_request_without_an_id_is_given_one_and_keeps_it() -> None:
    named = request_in(wanted())
    assert named.snapshot_id
    assert request_in(named) == named


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (wanted(to=""), "bad_queue_name"),
        (wanted(to="ü" * 128), "bad_queue_name"),
        (wanted(to="a\nb"), "bad_queue_name"),
        (wanted(to="syncaroo.events.log"), "own_queue"),
        (wanted(location_id=""), "bad_filter"),
        (wanted(attribute_type="x\0"), "bad_filter"),
        (wanted(attribute_type=""), "bad_filter"),
        (wanted(attribute_type="desks"), "bad_filter"),
        (wanted(connection_id=2**63), "bad_filter"),
        (wanted(snapshot_id="s" * 129), "bad_snapshot_id"),
    ],
)
def test_what_is_refused(request_: SnapshotRequested, reason: str) -> None:
    with pytest.raises(Permanent) as refused:
        request_in(request_)
    assert refused.value.reason == reason


def test_a_message_without_our_header_is_read_as_what_the_queue_is_for() -> None:
    plain = Delivery(b'{"to": "q"}', {}, "syncaroo.snapshot")
    assert plain.message(SnapshotRequested) == wanted()
    assert Delivery(b'{"to": "q"}', {"schema": ""}, "snapshot.1").message(SnapshotRequested) == wanted(), "replayed"
    with pytest.raises(Permanent, match="unknown schema"):
        plain.message()
    with pytest.raises(Permanent, match="unreadable_message"):
        Delivery(b'{"to": "q"}', {"schema": "Other"}, "").message(SnapshotRequested)
    webhook = WebhookReceived(delivery_id="d", connection_id=1, url="u", mapping=msgspec.UNSET, received_at=AT)  # type: ignore[arg-type]  # as a message is before it is decoded
    with pytest.raises(Permanent, match="unreadable_message"):
        request_in(webhook)


def test_what_goes_on_between_two_parts_survives_the_wire() -> None:
    rest = after(after(request_in(wanted(connection_id=99)), LISTING, 3), LISTING, 2)
    assert rest.after == SnapshotPosition(connection_id=99, listing_id="l", sent=5)
    assert Delivery(dumps(rest), {"schema": "SnapshotRequested"}, "").message() == rest
    assert sent_by(rest) == 5


def test_a_deleted_listing_and_the_end_on_the_wire() -> None:
    request = after(request_in(wanted(snapshot_id="s")), LISTING, 7)
    message = state_on_the_wire(LISTING, request, AT, "https://x/")
    body = loads(message.body)
    assert (body["type"], body["subject"], body["time"]) == ("listing.snapshot", "99/rates/1", "2026-01-02T03:04:05Z")
    assert body["dataschema"] == dataschema_of("https://x", ListingSnapshot)
    assert (body["data"]["current"], body["data"]["deleted"], body["data"]["version"]) == (None, True, 4)
    assert message.headers == {"connectionId": "99", "attributeType": "rates"}
    assert message.message_id == body["id"]
    end = loads(end_on_the_wire(request, AT, "https://x").body)
    assert (end["type"], end["subject"], end["data"]) == (
        "snapshot.completed", "s", {"snapshotId": "s", "listings": 7},
    )  # fmt: skip


@pytest.mark.parametrize(("value", "kept"), [("7", 7), ("true", None), ("99999999999999999999", None), ('"7"', None)])
def test_a_dead_letter_can_always_be_stored(value: str, kept: int | None) -> None:
    """Strangers may write anything there; true is an int in Python and none in a database."""
    body = b'{"connectionId": %s}' % value.encode()
    assert parked_from("snapshot", Delivery(body, {}, "dead.snapshot")).connection_id == kept


@given(st.lists(st.integers(0, 50)), st.integers(1, 100))
def test_a_page_is_as_many_as_fit_and_never_none(sizes: list[int], most: int) -> None:
    number = fitting(sizes, most)
    assert number >= min(1, len(sizes))
    assert sum(sizes[:number]) <= most or number == 1
    assert number == len(sizes) or sum(sizes[: number + 1]) > most


NOW = datetime(2026, 11, 24, 18, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("0", NOW),
        ("999999999d", EARLIEST),
        ("2026-11-24T10:00", datetime(2026, 11, 24, 10, tzinfo=UTC)),
        ("2026-11-24T10:00:30", datetime(2026, 11, 24, 10, 0, 30, tzinfo=UTC)),
        ("2026-11-24T10:00Z", datetime(2026, 11, 24, 10, tzinfo=UTC)),
        ("2026-11-24T10:00+02:00", datetime(2026, 11, 24, 8, tzinfo=UTC)),
        ("2026-11-24T10:00:00.000001Z", datetime(2026, 11, 24, 10, 0, 0, 1, tzinfo=UTC)),
        ("2026-11-24", datetime(2026, 11, 24, tzinfo=UTC)),
        ("0001-01-01", EARLIEST),
    ],
)
def test_moments(text: str, moment: datetime) -> None:
    assert moment_of(parse_when(text), NOW) == moment


@pytest.mark.parametrize("text", ["", "2", "yesterday", "-2h", "2026-13-01", "0001-01-01T00:00+05:00"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="such as 2h"):
        parse_when(text)


def told(position: int, listing_id: str | None, subject: str = "s") -> Told:
    event = PendingEvent(
        connection_id=99, event_id=str(position), type="listing.changed", schema_version=1, subject=subject,
        listing_id=listing_id, data="{}", headers="{}", created_at=AT,
    )  # fmt: skip
    return Told(position, event)


def test_of_a_listing_one_is_under_way_at_a_time() -> None:
    """T-REPLAY-TABLE."""
    past = [told(number, name) for number, name in enumerate("abcbd")]
    assert [one.position for one in in_order(past)] == [0, 1, 2]
    assert [one.position for one in in_order(past[3:])] == [3, 4]
    assert len(in_order(past, most=2)) == 2
    assert len(in_order([told(1, None), told(2, None), told(3, None, "other")])) == 1, "of no listing: by subject"


@dataclass
class FakePast:
    """Hands out pages of two."""

    events: list[Told]
    away: int = 0

    async def page(self, wanted: Wanted, after: int, last: int) -> list[Told]:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("store: away")
        return [one for one in self.events if after < one.position <= last][:2]

    async def earliest(self, wanted: Wanted, after: int, last: int) -> datetime:
        return AT + timedelta(seconds=after)


@dataclass
class FakeQueue:
    """Takes as many as it has room for; `troubles` come first, one a call."""

    room: int = 10**6
    troubles: list[Exception] = field(default_factory=list)
    got: list[str] = field(default_factory=list)
    calls: int = 0

    async def send(self, messages: Sequence[Outgoing]) -> int:
        self.calls += 1
        if self.troubles:
            raise self.troubles.pop(0)
        number = min(self.room, len(messages))
        if not number:
            raise QueueFull("queue q is full")
        self.room -= number
        self.got += [str(one.message_id) for one in messages[:number]]
        return number

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[FakeQueue]:
        assert name == "q"
        yield self


@dataclass
class FakeListings:
    """So many listings, in pages of two."""

    number: int

    async def page(self, request: SnapshotRequested) -> Page:
        return Page([LISTING] * min(2, self.number - sent_by(request)), AT)


async def test_the_end_of_a_snapshot_tells_how_many_there_were_and_each_part_how_many_there_are() -> None:
    queue, request = FakeQueue(), request_in(wanted())
    snapshots = Snapshots(FakeListings(5), queue.open, "s", part=4)  # type: ignore[arg-type]  # stand-ins for the broker and the store
    part = await snapshots.send_part(request)
    assert part.listings == 4
    assert part.rest is not None
    assert await snapshots.send_part(part.rest) == Part(5, None)
    assert len(queue.got) == 6


async def test_what_was_sent_before_a_trouble_is_not_sent_again() -> None:
    queue, request = FakeQueue(room=3), request_in(wanted())
    snapshots = Snapshots(FakeListings(5), queue.open, "s")  # type: ignore[arg-type]  # stand-ins for the broker and the store
    part = await snapshots.send_part(request)
    assert part.listings == 3
    assert part.rest is not None
    with pytest.raises(QueueFull):
        await snapshots.send_part(part.rest)
    queue.room = 9
    assert await snapshots.send_part(part.rest) == Part(5, None)


PAST = [told(number, name) for number, name in enumerate("aabcabdd", start=1)]
FOUND = Found([Count("listing.changed", None, None, 8, 0)], AT, AT, 1, 7, [], AT)
EVERYTHING = Wanted(AT)


def replay(queue: FakeQueue, past: FakePast | None = None, pauses: Sequence[float] = (0, 0)) -> Replay:
    return Replay(past or FakePast(PAST), queue.open, "s", pauses=pauses)  # type: ignore[arg-type]  # stand-ins for the broker and the store


async def test_a_replay_sends_each_once_in_order_and_nothing_behind_its_end() -> None:
    queue, progress = FakeQueue(), list[int]()
    assert await replay(queue).send(EVERYTHING, FOUND, "q", progress.append) == 7
    assert queue.got == list("1234567")
    assert (progress == sorted(set(progress)), progress[-1]) == (True, 7)


async def test_what_passes_is_waited_for_and_nothing_is_left_out() -> None:
    troubles: list[Exception] = [BrokerUnavailable("broker: lost"), QueueFull("queue q is full")]
    queue = FakeQueue(troubles=troubles)
    assert await replay(queue, FakePast(PAST, away=1), pauses=(0, 0, 0)).send(EVERYTHING, FOUND, "q") == 7
    assert queue.got == list("1234567")


async def test_a_queue_that_stays_full_ends_the_replay_and_tells_where_to_go_on() -> None:
    queue = FakeQueue(room=3)
    with pytest.raises(ReplayStopped, match="full") as stopped:
        await replay(queue).send(EVERYTHING, FOUND, "q")
    assert (stopped.value.sent, stopped.value.go_on) == (3, AT + timedelta(seconds=3))
    assert queue.got == list("123")


async def test_a_queue_that_is_not_there_ends_the_replay_at_once() -> None:
    queue = FakeQueue(troubles=[NoSuchQueue("q")])
    with pytest.raises(ReplayStopped) as stopped:
        await replay(queue).send(EVERYTHING, FOUND, "q")
    assert (queue.calls, stopped.value.sent) == (1, 0)
    assert isinstance(stopped.value.cause, NoSuchQueue)
