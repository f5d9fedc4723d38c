"""common.brake and the pure parts of deletion: who passes, who is held, what only a second walk tells."""

from datetime import UTC, datetime, timedelta

import pytest

from common.brake import State, Suspect, Tally, Vanished, is_news, is_too_many
from common.identity import item_url, place_of
from workers.fetch.absence import Absence, is_itself, sort_absent, vanished
from workers.reconcile.deletion import is_settled, undecided
from workers.reconcile.rules import Listing

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RATES = "https://api.syncaroo.com/v1/locations/5/resources/7/rates"
WITH, WITHOUT = Vanished("a", f"{RATES}/1"), Vanished("a", None)


@pytest.mark.parametrize(
    ("new", "live", "deleted", "pending", "held", "brake", "too_many"),
    [
        (3, 3, 0, 0, 0, 0.3, False),  # never more than 3 is never too many
        (4, 4, 0, 0, 0, 0.3, True),
        (3, 100, 0, 0, 0, 0.3, False),
        (30, 100, 0, 0, 0, 0.3, False),  # exactly the share
        (31, 100, 0, 0, 0, 0.3, True),
        (1, 70, 30, 0, 0, 0.3, True),  # what was deleted within the hour counts on both sides
        (1, 71, 29, 0, 0, 0.3, False),
        (1, 100, 0, 30, 0, 0.3, True),  # what is being asked counts
        (1, 100, 0, 0, 30, 0.3, True),  # and what is held
        (100, 100, 0, 0, 0, 1.0, False),  # no brake
        (1, 0, 50, 0, 0, 1.0, False),
        (3, 100, 0, 0, 0, 0.0, False),
        (4, 1000, 0, 0, 0, 0.0, True),
    ],
)  # fmt: skip
def test_the_brake(new: int, live: int, deleted: int, pending: int, held: int, brake: float, too_many: bool) -> None:
    assert is_too_many(new, Tally(live, deleted, pending, held), brake) is too_many


def test_a_person_is_told_of_every_batch_and_of_single_ones_whenever_they_have_doubled() -> None:
    assert is_news(0, 60)
    assert is_news(60, 2), "another walk's"
    assert not is_news(60, 1)
    assert [held + 1 for held in range(39) if is_news(held, 1)] == [1, 2, 4, 8, 16, 32]


def suspect(state: State, minutes: float = 0, walk: int = 10) -> Suspect:
    return Suspect(WITH, state, walk, NOW - timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("state", "minutes", "passed"),
    [
        ("absent", 0, False), ("held", 0, False), ("pending", 59, True), ("pending", 61, False),
        ("approved", 1, True), ("approved", 10_000, True),
    ],
)  # fmt: skip
def test_who_needs_not_ask_the_brake(state: State, minutes: float, passed: bool) -> None:
    assert suspect(state, minutes).passed(NOW) is passed
    assert undecided(["a", "b"], {"a": suspect(state, minutes)}, NOW) == (["b"] if passed else ["a", "b"])


@pytest.mark.parametrize(
    ("one", "known", "walk", "expected"),
    [
        (WITH, None, 20, "new"),
        (WITH, suspect("pending"), 20, "again"),
        (WITH, suspect("pending", 61), 20, "new"),  # its own URL was never answered: the brake is asked anew
        (WITH, suspect("approved"), 20, "again"),
        (WITH, suspect("held"), 20, None),
        (WITHOUT, None, 20, "first"),
        (WITHOUT, suspect("absent"), 20, "new"),  # the second complete walk
        (WITHOUT, suspect("absent"), 10, None),  # the same walk, judged twice
        (WITHOUT, suspect("pending"), 20, "again"),
        (WITHOUT, suspect("approved"), 20, "again"),
        (WITHOUT, suspect("held"), 20, None),
    ],
)
def test_what_an_absent_listing_becomes(one: Vanished, known: Suspect | None, walk: int, expected: str | None) -> None:
    found = sort_absent([one], {"a": known} if known else {}, walk, NOW)
    assert found == Absence(*([one] if name == expected else [] for name in ("new", "again", "first")))


@pytest.mark.parametrize(
    ("own_url", "own_path", "walked", "url"),
    [
        (None, "/v1/locations/5/resources/7/rates/1", RATES, f"{RATES}/1"),
        (None, "/v1/locations/5/resources/7/rates/1", f"{RATES}/?page=2", f"{RATES}/1"),
        (f"{RATES}/1?x=1", "/v1/locations/5/resources/7/rates/1", RATES, f"{RATES}/1?x=1"),
        (RATES, "/v1/locations/5/resources/7/rates", RATES, None),  # a list that was one listing, and is none now
        (None, "/v1/units", "https://api.syncaroo.com/v1/units", None),  # nothing says where its items are
    ],
)
def test_where_an_absent_listing_is_asked(own_url: str | None, own_path: str, walked: str, url: str | None) -> None:
    """Never at the URL that was just walked: that would go round for ever."""
    assert vanished("a", own_url, own_path, walked) == Vanished("a", url)


def test_a_collection_that_is_missing_is_itself_the_listing_only_where_it_was_read_alone() -> None:
    place = place_of(RATES)
    assert is_itself(RATES, place.path, place)
    assert not is_itself(None, "/v1/units", place_of("https://api.syncaroo.com/v1/units"))
    assert not is_itself(f"{RATES}/1", f"{place.path}/1", place)


def test_an_items_url_keeps_the_host_and_loses_the_query() -> None:
    assert item_url("/v1/locations/5", "https://api.syncaroo.com:8443/v1/locations?page=2#x") == (
        "https://api.syncaroo.com:8443/v1/locations/5"
    )


@pytest.mark.parametrize(("body", "began", "settled"), [({}, 10, False), ({}, 11, True), (None, 5, True)])
def test_a_suspect_is_settled_by_a_later_answer_or_its_deletion(body: object, began: int, settled: bool) -> None:
    listing = Listing(99, "a", "/s", "1", "/s/1", body=body, version=2, began=began)
    assert is_settled(listing, suspect("held", walk=10)) is settled
