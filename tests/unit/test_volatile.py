"""workers.reconcile.volatile: ignored members make no change, and the events still tell what is stored."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.codec import canonical, dumps, loads
from schemas.messages import Json, PlatformIds, Shape
from tests.rfc6902 import applied
from workers.reconcile.rules import Answer, decide, event_of, listing_for
from workers.reconcile.volatile import ignored_for, may_be_volatile, same_but_for, volatile_member

URL = "https://api.syncaroo.com/v1/locations/5/resources/7"
NEW = listing_for(99, URL, None, "item", None)
AT = datetime(2026, 1, 2, tzinfo=UTC)
IGNORED = frozenset({"seen"})


def answer(began: int, item: Json, shape: Shape = "item", ended: int | None = None) -> Answer:
    return Answer(item, shape, began, ended or began + 1, 0, PlatformIds(), URL if shape == "item" else None)


@pytest.mark.parametrize(
    ("fields", "kind", "ignored"),
    [
        ((), "resources", set()),
        (("viewCount", "resources.seen"), "resources", {"viewCount", "seen"}),
        (("viewCount", "resources.seen"), "rates", {"viewCount"}),
        (("Resource.seen",), "resources", {"seen"}),  # as webhooks spell kinds
        (("a.b", ".c"), "resources", {"a.b", ".c"}),  # no kind: the name itself has a dot
    ],
)
def test_what_is_ignored_for_a_kind(fields: tuple[str, ...], kind: str, ignored: set[str]) -> None:
    assert ignored_for(fields, kind) == ignored


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({"a": 1, "seen": 1}, {"a": 1, "seen": 2}, True),
        ({"a": 1, "seen": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "seen": None}, True),
        ({"a": 1, "seen": 1}, {"a": 2, "seen": 1}, False),
        ({"a": {"seen": 1}}, {"a": {"seen": 2}}, False),  # top-level members only
        ({"seen": 1}, None, False),
        (None, {"seen": 1}, False),
        ([{"seen": 1}], [{"seen": 2}], False),
    ],
)
def test_what_differs_in_ignored_members_alone(before: Json, after: Json, same: bool) -> None:
    assert same_but_for(IGNORED, before, after) is same
    assert same_but_for((), before, after) is False


def test_an_ignored_difference_is_no_change_no_doubt_and_comes_with_the_next_change() -> None:
    first = decide(NEW, answer(10, {"a": 1, "seen": 1}, ended=30), IGNORED).listing
    overlapping = decide(first, answer(20, {"a": 1, "seen": 2}), IGNORED)
    assert (overlapping.change, overlapping.doubt) == (None, False)
    assert (overlapping.listing.body, overlapping.listing.began) == ({"a": 1, "seen": 1}, 20)
    older = decide(overlapping.listing, answer(15, {"a": 1, "seen": 0}), IGNORED)
    assert not older.doubt
    changed = decide(overlapping.listing, answer(40, {"a": 2, "seen": 3}), IGNORED)
    event = event_of(overlapping.listing, changed, reason="webhook", delivery_id="d", fetched_at=AT)
    assert (event.changed_fields, event.current) == (["a", "seen"], {"a": 2, "seen": 3})
    assert decide(changed.listing, answer(50, None), IGNORED).change == "deleted"


ITEMS = st.none() | st.fixed_dictionaries({}, optional={"a": st.integers(0, 1), "seen": st.integers(0, 2)})


@given(st.lists(st.tuples(ITEMS, st.sampled_from(["item", "list"])), max_size=8))
def test_the_events_replayed_give_what_is_stored(answers: list[tuple[Json, Shape]]) -> None:
    """CONTRACT §5.2 holds with IGNORED_FIELDS: what no event told is not stored either."""
    known, state = NEW, None
    for number, (item, shape) in enumerate(answers, 1):
        outcome = decide(known, answer(10 * number, item, shape), IGNORED)
        if outcome.change:
            event = event_of(known, outcome, reason="webhook", delivery_id="d", fetched_at=AT)
            assert canonical(event.previous) == canonical(state)
            if event.change == "updated":
                assert set(event.changed_fields) != {"seen"}
                assert canonical(applied(loads(dumps(event.patch)), state)) == canonical(event.current)
            state = event.current
        known = outcome.listing
        assert canonical(known.body) == canonical(state)


@pytest.mark.parametrize(
    ("changes", "member"),
    [
        ([["seen"]] * 10, "seen"),
        ([["seen"]] * 9, None),
        ([["seen"]] * 9 + [["a"]], None),
        ([["seen"]] * 9 + [["a", "seen"]], None),
        ([["seen"]] * 9 + [[]], None),  # created, deleted, or a list
    ],
)
def test_a_member_that_makes_version_after_version_alone(changes: list[list[str]], member: str | None) -> None:
    assert volatile_member(changes) == member


def test_it_is_looked_for_at_every_tenth_version() -> None:
    assert [version for version in range(1, 31) if may_be_volatile(version)] == [10, 20, 30]
