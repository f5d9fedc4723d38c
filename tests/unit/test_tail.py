"""`gateway tail`: which events, and how they look; without a broker."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from common.codec import decode, dumps, loads
from common.foreign import harmless
from ops.commands.tail import Show
from ops.tail.event import Choice, Event
from ops.tail.lines import INDENT, MOST, Line, Lines
from ops.tail.stream import Logged
from ops.terminal import write_lines
from schemas.events import ConnectionChanged, EventData, GrantChanged, SyncHeld
from tests.events import Told, wire

AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def event(data: EventData) -> Event:
    return decode(wire(data, AT).body, Event)


def updated(before: dict[str, Any], after: dict[str, Any]) -> Event:
    told = Told()
    told.change("7843", {"ID": "7843", **before})
    return event(told.change("7843", {"ID": "7843", **after}))


def plain(lines: Sequence[Line]) -> list[str]:
    return ["".join(text for text, _ in line) for line in lines]


def shown(one: Event, width: int = 100) -> list[str]:
    return plain(list(Lines(width).of(one)))[1:]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (
            ConnectionChanged(connection_id=99, user_id="17", state="confirmed"),
            "03:04:05Z  99  connection confirmed, user 17",
        ),
        (GrantChanged(state="active"), "03:04:05Z  grant  access to Syncaroo active"),
        (
            GrantChanged(state="needs_authorisation"),
            "03:04:05Z  grant  access to Syncaroo needs authorisation: nothing is fetched until /connect is opened",
        ),
        (
            SyncHeld(connection_id=99, held=12, live=20),
            "03:04:05Z  99  12 of 20 listings vanished and are held; a person decides: gateway held list 99",
        ),
    ],
)
def test_events_that_are_no_listings(data: EventData, line: str) -> None:
    assert shown(event(data)) == [line]


def test_a_listing_from_its_beginning_to_its_end() -> None:
    told = Told()
    lines = Lines(100)

    created = list(lines.of(event(told.change("7843", {"ID": "7843", "Name": "Aula", "capacity": 10}))))
    changed = list(lines.of(event(told.change("7843", {"ID": "7843", "Name": "Aula", "capacity": 12, "tags": ["a"]}))))
    deleted = list(lines.of(event(told.change("7843", None))))

    assert plain(created) == [
        "2026-01-02 UTC",
        "03:04:05Z  99/resources/7843  created  v1  “Aula”  webhook, location 1198, resource 7843",
    ]
    assert plain(changed) == [
        "03:04:05Z  99/resources/7843  updated  v2  “Aula”  webhook, location 1198, resource 7843",
        f"{INDENT}capacity  10 → 12",
        f'{INDENT}tags      (none) → ["a"]',
    ], "the day is told once"
    assert plain(deleted) == ["03:04:05Z  99/resources/7843  deleted  v3  “Aula”  gone, location 1198, resource 7843"]
    assert ("10", "red") in changed[1]
    assert ("12", "green") in changed[1]
    assert [line[2] for line in (created[1], changed[0], deleted[0])] == [
        ("created", "green"), ("updated", "yellow"), ("deleted", "magenta"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ({"price": {"amount": 10, "currency": "EUR"}}, {"price": {"amount": 12.5, "currency": "EUR"}},
         "price/amount  10 → 12.5"),
        ({"a/b~c": 1}, {"a/b~c": 2}, "a/b~c  1 → 2"),
        ({"old": True}, {}, "old  true → (none)"),
        ({"tags": ["a", "b"]}, {"tags": ["a", "c"]}, 'tags/1  "b" → "c"'),
        ({"text": "x" * 500 + "1"}, {"text": "x" * 500 + "2"}, 'text  …xxxxxx1" → …xxxxxx2"'),
    ],
)  # fmt: skip
def test_each_operation_is_one_line(before: dict[str, Any], after: dict[str, Any], line: str) -> None:
    assert shown(updated(before, after))[1:] == [INDENT + line]


def test_long_values_stay_on_their_line_and_many_differences_are_counted() -> None:
    many = updated({}, {f"member{number}": "y" * 300 for number in range(MOST + 5)})

    lines = shown(many, 80)

    assert len(lines) == 1 + MOST + 1
    assert lines[-1] == f"{INDENT}… and 5 more; --json shows all"
    assert max(map(len, lines[1:])) <= 80


def test_a_type_of_a_newer_gateway_is_shown_as_it_is() -> None:
    lines = shown(Event(type="rate.limited", subject="99", time=AT, data={"calls": 20, "note": "z" * 500}))

    assert lines[0].startswith('03:04:05Z  99  rate.limited  {"calls":20,"note":"zz')
    assert len(lines[0]) <= 120


HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe\r\n\u2028\x7fend"


@pytest.mark.parametrize(
    "one",
    [
        updated({"Name": HOSTILE, HOSTILE: HOSTILE}, {"Name": HOSTILE, HOSTILE: "other"}),
        Event(type="listing.changed", subject=HOSTILE, time=AT, data={"change": HOSTILE, "reason": HOSTILE}),
        Event(type=HOSTILE, subject="s", time=AT, data={HOSTILE: HOSTILE}),
        Event(type="connection.changed", subject="s", time=AT, data={"state": HOSTILE, "userId": HOSTILE}),
        Event(type="grant.changed", subject="s", time=AT, data={"state": HOSTILE}),
        Event(type="sync.held", subject="s", time=AT, data={"connectionId": HOSTILE, "held": HOSTILE}),
    ],
)
def test_no_foreign_text_moves_a_terminal(one: Event) -> None:
    text = "\n".join(shown(one, 400))

    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]", text)
    assert "\\u001b[2J" in text, "it is seen, not hidden"


@given(st.text())
def test_what_is_made_harmless_is_printable_and_says_the_same_in_json(text: str) -> None:
    encoded = harmless(dumps(text).decode())

    assert not re.search("[\x00-\x1f\x7f-\x9f]", encoded)
    assert loads(encoded.encode()) == text


DATA = {"listingId": "l-1", "connectionId": 99, "locationId": "1198", "attributeType": "rates", "change": "updated"}


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({}, True),
        ({"connection": {99}}, True),
        ({"connection": {98, 99}}, True),
        ({"connection": {98}}, False),
        ({"location": {"1198"}}, True),
        ({"location": {"1199"}}, False),
        ({"kind": {"rates"}}, True),
        ({"kind": {"resources"}}, False),
        ({"change": {"updated", "deleted"}}, True),
        ({"change": {"created"}}, False),
        ({"type": {"listing.changed"}}, True),
        ({"type": {"sync.held"}}, False),
        ({"listing": {"l-1"}}, True),
        ({"listing": {"99/rates/5"}}, True),
        ({"listing": {"l-2"}}, False),
        ({"connection": {99}, "change": {"created"}}, False),
        ({"since": AT}, True),
        ({"since": AT + timedelta(seconds=1)}, False),
    ],
)
def test_every_filter_must_fit(filters: dict[str, Any], wanted: bool) -> None:
    found: dict[str, Any] = {
        name: frozenset(value) if isinstance(value, set) else value for name, value in filters.items()
    }

    choice = Choice(**found)

    assert choice.wants(Event(type="listing.changed", subject="99/rates/5", time=AT, data=DATA)) is wanted


def test_an_event_without_what_a_filter_asks_for_does_not_fit() -> None:
    grant = Event(type="grant.changed", subject="grant", time=AT, data={"state": "active"})

    assert Choice().wants(grant)
    assert not Choice(connection=frozenset({99})).wants(grant)
    odd = Event(type="x", subject="x", time=AT, data={"connectionId": [99]})
    assert not Choice(connection=frozenset({99})).wants(odd)


def test_json_is_the_event_itself_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    told = Told()
    bodies = [told.put("1", Name="Grüße\x9b31m\u2028").body, told.put("1", Name="Zwei").body]

    assert Show(Choice(), None, True)([Logged(number, body) for number, body in enumerate(bodies)])

    printed = capsys.readouterr().out
    assert [loads(line.encode()) for line in printed.splitlines()] == [loads(body) for body in bodies]
    assert "Grüße\\u009b31m\\u2028" in printed


def test_a_limit_counts_what_is_shown_and_ends_in_the_middle_of_a_batch(capsys: pytest.CaptureFixture[str]) -> None:
    told = Told()
    messages = [Logged(number, told.put(str(number % 2), n=number).body) for number in range(10)]
    show = Show(Choice(listing=frozenset({"99/resources/1"})), 3, True)

    assert show(messages[:3]) is True
    assert show(messages[3:]) is False

    subjects = [loads(line.encode())["data"]["current"]["n"] for line in capsys.readouterr().out.splitlines()]
    assert subjects == [1, 3, 5]


def test_what_is_no_event_is_told_beside_the_events(capsys: pytest.CaptureFixture[str]) -> None:
    assert Show(Choice(), 1, True)([Logged(7, b'{"hello": 1}'), Logged(8, b"\x00\xff")])

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [f"offset {number}: not an event of the gateway" for number in (7, 8)]


@pytest.mark.parametrize(
    ("terminal", "environment", "printed"),
    [
        (True, {"TERM": "xterm"}, "\x1b[31m10\x1b[0m → \x1b[32m12\x1b[0m\n"),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, "10 → 12\n"),
        (True, {"TERM": "dumb"}, "10 → 12\n"),
        (False, {"TERM": "xterm"}, "10 → 12\n"),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], printed: str
) -> None:
    file = StringIO()
    monkeypatch.setattr("ops.terminal.out", Console(file=file, force_terminal=terminal, _environ=environment))

    write_lines([[("10", "red"), (" → ", ""), ("12", "green")]])

    assert file.getvalue() == printed


@pytest.mark.parametrize(
    "odd",
    [
        {"time": "2026-01-02T03:04:05"},
        {"time": "0001-01-01T00:00:00+14:00"},
        {"data": {"change": "updated", "current": {"a": 1}, "previous": {}, "patch": [{"op": "replace"}]}},
        {"data": {"change": "updated", "current": {"a": 1}, "previous": {}, "patch": 7}},
        {"data": {"change": "updated", "current": {"a": 1}, "previous": {}, "patch": [1]}},
    ],
)
def test_a_message_that_only_looks_like_an_event_ends_nothing(
    odd: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Anybody who may publish on the exchange can put one into the log."""
    good = {
        "type": "listing.changed",
        "subject": "99/rates/1",
        "time": "2026-01-02T03:04:05Z",
        "data": {"change": "created"},
    }
    show = Show(Choice(since=AT - timedelta(days=1)), None, False)
    assert show([Logged(6, dumps({**good, **odd})), Logged(7, dumps(good))])
    said = capsys.readouterr()
    assert "99/rates/1" in said.out
