"""ops.why: a listing's history as a story, and the story on a screen of 80 columns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from common.codec import dumps
from common.story import Change, Look, Webhook, story_of
from ops.why.ask import Answers
from ops.why.screen import screen
from ops.why.values import changed_values, shortened

ROOMS = "https://api.syncaroo.com/v1/locations/5/resources"
ROOM = f"{ROOMS}/7843"
PATH = "/v1/locations/5/resources/7843"
DELIVERY = "0197a6f2-0000-7000-8000-000000000000"
BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def at(seconds: float) -> str:
    return (BEGIN + timedelta(seconds=seconds)).isoformat()


def attempt(started: int, **more: Any) -> dict[str, Any]:
    return {
        "kind": "attempt", "connectionId": 99, "url": ROOM, "reason": "webhook", "deliveryId": DELIVERY,
        "receivedAt": at(started - 1), "askedAt": None, "asked": 1, "attempt": 0, "started": started,
        "ended": started + 2, "outcome": "answered", "status": 200, "pages": 1, "detail": None, "at": at(started),
        **more,
    }  # fmt: skip


def change(version: int, began: int, **more: Any) -> dict[str, Any]:
    return {
        "kind": "change", "eventId": f"event-{version}", "position": began + 3, "at": at(began), "version": version,
        "publishedAt": at(began), "change": "updated", "reason": "webhook", "changedFields": [], "patch": [],
        "previous": None, "current": None, "cause": {"url": ROOM, "began": began, "ended": began + 1},
        "traceId": None, **more,
    }  # fmt: skip


def listing(**more: Any) -> dict[str, Any]:
    return {
        "listingId": "88527d97-e216-5b57-9f52-47cd33eb7a07", "connectionId": 99, "attributeType": "resources",
        "itemId": "7843", "locationId": "1198", "resourceId": "7843", "resourceType": "meeting-room", "version": 3,
        "current": {"name": "Blue room"}, "deleted": False, "path": PATH, "collection": "/v1/locations/5/resources",
        "url": ROOM, "unmapped": False, "suspect": None, "changedAt": at(0), "began": 1000, "ended": 1001, "asked": 1,
        **more,
    }  # fmt: skip


def target(**more: Any) -> dict[str, Any]:
    return {
        "connectionId": 99, "url": ROOM, "state": "resting", "reason": "webhook", "deliveryId": DELIVERY, "wanted": 5,
        "asked": 5, "askedAt": at(0), "started": 6, "answered": 6, "attempts": 0, "notBefore": None, "recheckAt": None,
        "leaseUntil": None, "hostBlockedUntil": None, "lastStatus": 200, "lastError": None, **more,
    }  # fmt: skip


def answers(history: list[dict[str, Any]], **more: Any) -> Answers:
    """What the admin API would say; `history` here is oldest first."""
    given = {
        "connection_id": 99, "path": PATH, "collection": "/v1/locations/5/resources", "listing": listing(),
        "targets": [target()], "more": False, "grant": {"state": "active"}, "connection": {"state": "confirmed"},
    }  # fmt: skip
    return Answers(**{**given, **more}, history=list(reversed(history)))


def shown(told: Answers, seconds: float = 60, width: int = 80) -> str:
    lines = [line.plain for line in screen(told, BEGIN + timedelta(seconds=seconds), width)]
    assert all(len(line) <= width for line in lines), max(lines, key=len)
    return "\n".join(lines)


# --- the story --------------------------------------------------------------------------------------------------------


def told(*oldest_first: dict[str, Any]) -> list[str]:
    """Each entry in a word or two."""
    words = []
    for entry in story_of(list(reversed(oldest_first))):
        match entry:
            case Webhook():
                words.append(f"webhook {entry.number}")
            case Look():
                numbers = "+".join(str(one["started"]) for one in entry.attempts)
                words.append(" ".join([f"look {numbers}", *(f"v{one['version']}" for one in entry.changes)]))
            case Change():
                words.append(f"v{entry.change['version']}")
    return words


def test_a_webhook_is_told_once_before_the_first_attempt_for_it() -> None:
    first = attempt(2, asked=1, outcome="put_off", status=503)
    again = attempt(5, asked=1, attempt=1)
    look = attempt(9, asked=1, reason="second_look")
    later = attempt(20, asked=19)
    of_the_collection = attempt(30, url=ROOMS, asked=12)
    assert told(first, again, look, later, of_the_collection) == [
        *("webhook 1", "look 2", "look 5", "look 9", "webhook 19", "look 20"),
        *("webhook 12", "look 30"),
    ]


def test_a_change_belongs_to_the_attempt_whose_numbers_enclose_its_answer() -> None:
    """Each page of a walk has a number of its own, after the attempt's first."""
    walk = attempt(10, url=ROOMS, reason="resync", ended=40, pages=3)
    own = attempt(12, reason="resync", ended=14)
    page_three = change(1, 30, cause={"url": ROOMS, "began": 30, "ended": 31})
    answer = change(2, 12, position=45, cause={"url": ROOM, "began": 12, "ended": 13})
    assert told(walk, own, page_three, answer) == ["look 10 v1", "look 12 v2"]


def test_a_list_told_as_one_belongs_to_the_attempt_that_read_its_last_page() -> None:
    gone_on = attempt(20, reason="resync", ended=24)
    assert told(gone_on, change(1, 12, position=30, cause={"url": ROOM, "began": 12, "ended": 22})) == ["look 20 v1"]


def test_a_change_without_its_attempt_is_told_by_itself() -> None:
    died = change(1, 5)
    unmapped = change(2, 8, cause=None)
    assert told(attempt(2), died, unmapped, attempt(20, asked=1)) == ["webhook 1", "look 2", "v1", "v2", "look 20"]


def test_looks_that_came_to_the_same_are_one() -> None:
    quiet = [attempt(number, reason="resync") for number in (10, 20, 30)]
    failing = [attempt(number, reason="resync", outcome="put_off", status=503) for number in (40, 50, 60)]
    other = attempt(70, reason="resync", outcome="put_off", status=500)
    assert told(*quiet, *failing, other) == ["look 10+20+30", "look 40+50+60", "look 70"]
    assert told(*quiet[:2], *failing[:2]) == ["look 10", "look 20", "look 40", "look 50"], "two are two"
    assert told(quiet[0], quiet[1], change(1, 20), quiet[2]) == ["look 10", "look 20 v1", "look 30"]
    assert told(quiet[0], attempt(15, reason="resync", detail="too many pages"), quiet[1]) == [
        *("look 10", "look 15", "look 20"),
    ]


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "line"),
    [
        ({"op": "replace", "path": "/capacity", "value": 12}, ("capacity", "10 → 12")),
        ({"op": "add", "path": "/new", "value": None}, ("new", "(none) → null")),
        ({"op": "remove", "path": "/capacity"}, ("capacity", "10 → (none)")),
        ({"op": "replace", "path": "/deep/list/0/a~1b", "value": []}, ("deep/list/0/a/b", '"x" → []')),
        ({"op": "replace", "path": "", "value": 1}, ("all of it", '{"capacity":10,"deep":{"list":[{"a/b":"x"}]}} → 1')),
        ({"op": "replace", "path": "/not/there", "value": 1}, ("not/there", "null → 1")),
    ],
)  # fmt: skip
def test_old_and_new(operation: dict[str, Any], line: tuple[str, str]) -> None:
    previous = {"capacity": 10, "deep": {"list": [{"a/b": "x"}]}}
    assert changed_values(change(2, 5, previous=previous, patch=[operation]), 80) == [line]


def test_many_differences_are_cut_and_aligned() -> None:
    patch = [{"op": "add", "path": f"/{'n' * number}", "value": 1} for number in range(1, 12)]
    lines = changed_values(change(2, 5, previous={}, patch=patch), 60)
    assert {len(name) for name, _ in lines} == {8}
    assert lines[-1][1] == "and 3 more; --json shows all"
    (only,) = changed_values(change(2, 5, patch=[{"op": "remove", "path": "/" + "long/" * 20}]), 60)
    assert len(only[0]) == 20


def test_long_values_show_where_they_differ() -> None:
    text = "x" * 500
    old, new = shortened(f"{text} until 5 pm {text}", f"{text} until 6 pm {text}", 50)
    assert "5 pm" in old
    assert "6 pm" in new
    assert len(old) + len(new) <= 50
    assert shortened("a", "b" * 100, 40) == ("a", f"{'b' * 38}…")
    assert shortened("b" * 100, "a", 40) == (f"{'b' * 38}…", "a")
    assert shortened("old", "new", 1) == ("old", "new"), "never less than a few characters"


# --- the screen -------------------------------------------------------------------------------------------------------


def test_the_whole_screen() -> None:
    patch = [{"op": "replace", "path": "/capacity", "value": 12}]
    history = [
        attempt(2, status=503, outcome="put_off", detail="answered 503"),
        attempt(6, attempt=1), change(1, 7, change="created"),
        attempt(30, asked=29, askedAt=at(40)), change(2, 31, previous={"capacity": 10}, patch=patch),
        attempt(35, asked=29, reason="second_look"),
        attempt(50, url=ROOMS, reason="resync", pages=3),
        *(attempt(60 + number, reason="resync") for number in range(5)),
    ]  # fmt: skip
    assert (
        shown(answers(history, more=True))
        == """\
99/resources/7843  “Blue room”
listing     88527d97-e216-5b57-9f52-47cd33eb7a07
path        /v1/locations/5/resources/7843
ours        location 1198, resource 7843, type meeting-room
now         version 3, live, since 03:04:05 (60 s ago)
last told   03:04:05 (60 s ago), by a webhook
last read   03:05:09 (0.0 s ago), with 200
target      answered with 200, nobody waits for it

… earlier: --limit shows more
2026-01-02 UTC
03:04:06  webhook      delivery 0197a6f2-0000-7000-8000-000000000000          #1
03:04:07  attempt 1    503, put off                                         #2-4
03:04:11  attempt 2    200                                                  #6-8
                       → version 1 created, event published 03:04:12
03:04:34  webhook      delivery 0197a6f2-0000-7000-8000-000000000000         #29
                       taken up only 11 s later
03:04:35  attempt 1    200                                                #30-32
                       capacity  10 → 12
                       → version 2 updated, event published 03:04:36
03:04:40  7 times      until 03:05:09: nothing changed                    #35-66"""
    )


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"state": "due", "reason": "resync"}, "wanted by a resync, due: a fetch worker takes it up next"),
        ({"state": "waiting", "notBefore": at(100)}, "wanted by a webhook, waits until 03:05:45 (in 40 s)"),
        ({"lastStatus": 403, "lastError": "refused"}, "target      given up after 403: refused"),
        (
            {"state": "fetching", "leaseUntil": at(75), "reason": "hand"},
            "wanted by hand, being fetched; its lease ends 03:05:20 (in 15 s)",
        ),
        ({"recheckAt": at(90_000)}, "answered with 200; a second look at 2026-01-03 04:04:05 (in 24 h)"),
        ({"hostBlockedUntil": at(200)}, "API         asked us to be left alone until 03:07:25 (in 2 min)"),
        (
            {"state": "waiting", "notBefore": at(61), "attempts": 2, "lastError": "answered 503"},
            "last time: answered 503 (2 failures in a row)",
        ),
    ],
)  # fmt: skip
def test_what_it_waits_for(more: dict[str, Any], line: str) -> None:
    assert line in shown(answers([], targets=[target(**more)]))


def test_what_a_person_must_do() -> None:
    letter = {"id": DELIVERY, "queue": "syncaroo.fetch", "reason": "refused", "at": at(0)}
    suspect = {"state": "held", "since": at(0)}
    screen = shown(
        answers(
            [attempt(2, outcome="parked", status=403, detail="refused")],
            listing=listing(suspect=suspect, unmapped=True),
            dead_letters=[letter],
            grant={"state": "needs_authorisation"},
            connection={"state": "revoked"},
        )
    )
    for line in (
        "grant       needs authorisation: nothing is fetched until /connect is opened",
        "connection  revoked: not synced until its user authorises it again",
        "unmapped    left alone until a webhook for the item itself",
        "suspect     held with too many others: gateway held list 99",
        "parked      refused at fetch, 03:04:05 (60 s ago); to try again:",
        f"            gateway dlq replay {DELIVERY}",
        "last read   never with success, as far as this goes back",
        "03:04:07  attempt 1    403, parked: refused                                 #2-4",
    ):
        assert line in screen.splitlines()


def test_a_url_that_has_not_become_a_listing() -> None:
    failing = attempt(
        2, status=None, outcome="put_off", detail="ServerDisconnectedError: the server went away in the middle"
    )
    screen = shown(answers([failing], listing=None, targets=[]))
    assert screen.startswith("listing     none yet: nothing was ever read from this URL\npath        /v1/")
    assert "no answer, put off: ServerDisconnectedError: the server\n" + " " * 23 + "went away" in screen


def test_a_list_is_no_listing_and_its_answer_is_not_called_unchanged() -> None:
    screen = shown(answers([attempt(2)], listing=None))
    assert screen.startswith("listing     none: this URL is a list,")
    assert "03:04:07  attempt 1    200 " in screen
    assert "nothing changed" not in screen


def test_an_answer_that_reconcile_has_not_seen_is_not_called_unchanged() -> None:
    screen = shown(answers([attempt(2), attempt(1002)]))
    assert "200, nothing changed" in screen
    assert "200, not compared yet" in screen


def test_an_event_that_waits_and_a_history_that_is_forgotten() -> None:
    waiting = change(2, 3, publishedAt=None)
    assert "→ version 2 updated, its event waits for the relay" in shown(answers([attempt(2), waiting]))
    late = change(2, 3, publishedAt=at(90))
    assert "→ version 2 updated, event published 87 s later" in shown(answers([attempt(2), late]), 100)
    assert "trace" not in shown(answers([attempt(2), late]), 100)
    traced = change(2, 3, traceId="4bf92f3577b34da6a3ce929d0e0e4736")
    assert "  trace 4bf92f3577b34da6a3ce929d0e0e4736" in shown(answers([attempt(2), traced]))
    assert "No attempts and no events are kept" in shown(answers([]))
    died, unmapped = change(1, 5), change(2, 8, cause=None, change="deleted", reason="unmapped")
    screen = shown(answers([died, unmapped]))
    assert "webhook      by an attempt that is not kept, numbers 5-6" in screen
    assert "unmapped     told by a webhook alone, nothing was fetched" in screen


def test_a_silent_connection_is_shown() -> None:
    silent = {"state": "confirmed", "silentSince": at(0)}
    assert "connection  unusually silent since 03:04:05 (60 s ago)" in shown(answers([], connection=silent))


@pytest.mark.parametrize("width", [72, 80, 120])
def test_nothing_is_wider_than_the_screen(width: int) -> None:
    body = {name: name * 300 for name in ("a", "b")} | {"a" * 100: 1}
    patch = [{"op": "replace", "path": f"/{name}", "value": dumps(body).decode()} for name in body]
    history = [attempt(2, detail="words " * 30), change(1, 3, previous=body, patch=patch)]
    shown(answers(history, listing=listing(current={"name": "n" * 300})), width=width)


def test_the_latest_webhook_may_have_been_for_the_collection() -> None:
    own, of_all = target(askedAt=at(10)), target(url=ROOMS, askedAt=at(20))
    assert "last told   03:04:25 (40 s ago), by a webhook for its collection" in shown(
        answers([], targets=[own, of_all])
    )
    assert "last told   03:04:25 (40 s ago), by a webhook\n" in shown(
        answers([], targets=[target(askedAt=at(20)), of_all])
    )
    assert "last told" not in shown(answers([], targets=[target(askedAt=None)]))
