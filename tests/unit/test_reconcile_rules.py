"""workers.reconcile: order, doubts, versions, and patches that an applier of our own applies."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.codec import canonical, dumps, loads
from schemas.events import PatchOperation
from schemas.messages import Json, PlatformIds
from tests.rfc6902 import applied
from workers.reconcile.patch import FEW, changed_fields, patch_between, shortest_patch
from workers.reconcile.rules import Answer, Listing, Outcome, decide, event_of, listing_for, unmap

Shape = Literal["item", "list", "whole"]
URL = "https://api.syncaroo.com/v1/locations/5/resources/7"
NEW = listing_for(99, URL, None, "item", None)
AT = datetime(2026, 1, 2, tzinfo=UTC)


def answer(
    began: int,
    item: Json,
    ended: int | None = None,
    *,
    shape: Shape = "item",
    asked: int = 0,
    mapping: PlatformIds | None = None,
) -> Answer:
    end = began + 1 if ended is None else ended
    return Answer(item, shape, began, end, asked, mapping or PlatformIds(), URL if shape == "item" else None)


def after(*answers: Answer, known: Listing = NEW) -> Listing:
    for one in answers:
        known = decide(known, one).listing
    return known


# --- patches ----------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "", "~", "/", "~1", "0", "-", "é"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([0.0, -0.0, 1.0, 1.5])
    | st.sampled_from(["", "x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, VALUES)
def test_a_patch_leads_from_before_to_after(before: Json, later: Json) -> None:
    """CONTRACT §4: RFC 6902 from `previous` to `current`; empty exactly when nothing changed (`1`, `1.0` differ)."""
    patch = loads(dumps(patch_between(before, later)))
    assert canonical(applied(patch, before)) == canonical(later)
    assert (patch == []) == (canonical(before) == canonical(later))


@given(st.dictionaries(NAMES, VALUES), st.dictionaries(NAMES, VALUES))
def test_changed_fields_are_those_the_patch_touches(before: dict[str, Json], later: dict[str, Json]) -> None:
    fields = changed_fields(before, later)
    touched = {one.path.split("/")[1].replace("~1", "/").replace("~0", "~") for one in patch_between(before, later)}
    assert fields == sorted(touched)
    assert changed_fields([1], [2]) == []


def test_a_list_that_has_shifted_is_told_by_its_value() -> None:
    """T-FR-BIG: else the patch may be many times as long as the list, and the event too large for a message."""
    before = [{"a": number, "b": number} for number in range(FEW)]
    shifted = [{"a": number + 1, "b": number + 1} for number in range(FEW)]
    assert shortest_patch(before, shifted) == [PatchOperation(op="replace", path="", value=shifted)]
    assert shortest_patch(before[:9], shifted[:9]) == patch_between(before[:9], shifted[:9])
    wordy = [{"text": "x" * 99, "n": item["a"]} for item in before + before]
    renumbered = [one | {"n": -1} for one in wordy]
    assert shortest_patch(wordy, renumbered) == patch_between(wordy, renumbered), "shorter than its value"


def test_a_patch_as_the_contract_shows_it() -> None:
    patch = patch_between({"ID": "7", "capacity": 10, "old": 1}, {"ID": "7", "capacity": 12, "new": None})
    assert loads(dumps(patch)) == [
        {"op": "remove", "path": "/old"},
        {"op": "replace", "path": "/capacity", "value": 12},
        {"op": "add", "path": "/new", "value": None},
    ]


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "next_one", "change", "doubt", "body"),
    [
        # newer
        ((10, 11, "x"), (20, 21, "y"), "updated", False, "y"),
        ((10, 11, "x"), (20, 21, "x"), None, False, "x"),
        ((10, 11, "x"), (20, 21, None), "deleted", False, None),
        # older: never overwrites (CONTRACT §5.3, G3)
        ((20, 21, "x"), (10, 11, "y"), None, False, "x"),
        ((20, 21, "x"), (10, 11, None), None, False, "x"),
        # overlapping and different: asked again, whichever comes first
        ((10, 20, "x"), (15, 25, "y"), "updated", True, "y"),
        ((15, 25, "x"), (10, 20, "y"), None, True, "x"),
        ((10, 30, "x"), (15, 20, "y"), "updated", True, "y"),
        ((15, 20, "x"), (10, 30, None), None, True, "x"),
        # overlapping and alike: no doubt
        ((10, 20, "x"), (15, 25, "x"), None, False, "x"),
        ((15, 25, "x"), (10, 20, "x"), None, False, "x"),
        # the same message again
        ((10, 11, "x"), (10, 11, "x"), None, False, "x"),
        ((10, 11, "x"), (10, 11, "y"), None, False, "x"),
    ],
)
def test_later_begun_wins(
    known: tuple[int, int, Json], next_one: tuple[int, int, Json], change: str | None, doubt: bool, body: Json
) -> None:
    def given_(one: tuple[int, int, Json]) -> Answer:
        return answer(one[0], None if one[2] is None else {"v": one[2]}, one[1])

    outcome = decide(after(given_(known)), given_(next_one))
    assert (outcome.change, outcome.doubt) == (change, doubt)
    assert outcome.listing.body == (None if body is None else {"v": body})
    assert outcome.listing.version == (2 if change else 1)


def test_unchanged_answers_move_the_numbers_too() -> None:
    """Else an older one that differs could still come in."""
    known = after(answer(10, {"v": 1}), answer(30, {"v": 1}))
    assert (known.began, known.ended, known.version) == (30, 31, 1)
    assert decide(known, answer(20, {"v": 2})) == Outcome(known)


@pytest.mark.parametrize(
    "earlier",
    [
        [answer(10, {"v": 1}, 40), answer(15, {"v": 1}, 16)],
        [answer(15, {"v": 1}, 16), answer(10, {"v": 1}, 40)],
    ],
)
def test_a_slow_answer_is_not_forgotten_behind_a_quick_one(earlier: list[Answer]) -> None:
    """CONTRACT §5.3: the slow one may have been made later than what begins while it is under way."""
    known = after(*earlier)
    assert known.began == 15
    outcome = decide(known, answer(20, {"v": 2}))
    assert (outcome.change, outcome.doubt) == ("updated", True)
    assert decide(known, answer(50, {"v": 2})).doubt is False


BODIES = st.sampled_from([None, {"v": 1}, {"v": 2}, {"v": 2.0}, {"v": 1, "status": "deleted"}])


@given(st.lists(BODIES, min_size=1, max_size=5), st.data())
def test_any_order_ends_in_the_latest(bodies: list[Json], data: st.DataObject) -> None:
    """CONTRACT §5.2, T-REORDER, T-DUP, T-IDEMP: any order, any duplicates of answers that did not overlap."""
    answers = [answer(10 * number, body) for number, body in enumerate(bodies, 1)]
    order = data.draw(st.lists(st.sampled_from(answers), max_size=8))
    known, versions, told = NEW, [0], []
    for one in [*order, *data.draw(st.permutations(answers))]:
        outcome = decide(known, one)
        assert not outcome.doubt
        assert (outcome.change is not None) == (outcome.listing.version == known.version + 1)
        assert outcome.listing.version in (known.version, known.version + 1)
        if outcome.change:
            told.append((known, outcome))
        known = outcome.listing
        versions.append(known.version)
    assert known.body == after(answers[-1]).body
    assert canonical(known.body) == canonical(after(answers[-1]).body)
    state: Json = None
    for number, (before, outcome) in enumerate(told, 1):  # the events, replayed from nothing, give the state
        event = event_of(before, outcome, reason="webhook", delivery_id="d", fetched_at=AT)
        assert event.version == number
        assert canonical(event.previous) == canonical(state)
        if event.change == "updated":
            assert canonical(applied(loads(dumps(event.patch)), state)) == canonical(event.current)
        state = event.current
    assert canonical(state) == canonical(known.body)


@st.composite
def pairs(draw: st.DrawFn, *, overlapping: bool) -> tuple[Answer, Answer]:
    """Two answers about one item: the second one began later, before or after the first one had arrived."""
    moments = draw(st.lists(st.integers(1, 99), min_size=4, max_size=4, unique=True).map(sorted))
    late_end = draw(st.booleans())
    if overlapping:
        first, second = (moments[0], moments[2 + late_end]), (moments[1], moments[3 - late_end])
    else:
        first, second = (moments[0], moments[1]), (moments[2], moments[3])
    shapes: list[Shape] = draw(st.lists(st.sampled_from(["item", "list"]), min_size=2, max_size=2))
    bodies = [draw(BODIES) if shape == "item" else draw(BODIES.filter(bool)) for shape in shapes]
    one, other = (
        answer(began, body, ended, shape=shape)
        for (began, ended), body, shape in zip((first, second), bodies, shapes, strict=True)
    )
    return one, other


@given(pairs(overlapping=False))
def test_what_began_after_an_answer_had_arrived_is_never_overwritten_by_that_older_one(
    pair: tuple[Answer, Answer],
) -> None:
    """CONTRACT §5.3, T-REORDER: whatever their shapes; at most it is asked once more."""
    older, newer = pair
    known = after(newer)
    outcome = decide(known, older)
    assert (outcome.change, outcome.listing.body, outcome.listing.version) == (None, known.body, known.version)
    assert outcome.listing.began == newer.began
    assert decide(outcome.listing, older) == Outcome(outcome.listing), "the second copy does not even do that"
    if (older.shape, newer.shape) != ("item", "list"):
        assert not outcome.doubt, "nothing that the newer one could not tell"


@given(pairs(overlapping=True), st.booleans())
def test_requests_that_overlapped_and_differ_are_asked_again(pair: tuple[Answer, Answer], swapped: bool) -> None:
    """CONTRACT §5.3, T-REORDER: whichever of them comes first, and only then."""
    first, second = reversed(pair) if swapped else pair
    known = after(first)
    outcome = decide(known, second)
    told_alike = canonical(after(second, known=replace(known, began=0)).body) == canonical(known.body)
    assert outcome.doubt == (not told_alike)
    assert outcome.listing.began == pair[1].began, "until then the later-begun one counts"


# --- lists and items --------------------------------------------------------------------------------------------------

FULL, SUMMARY = {"ID": 7, "n": 1, "text": "long"}, {"ID": 7, "n": 2}


def test_a_list_changes_only_the_members_it_holds_in_an_items_own_body() -> None:
    item, listed = answer(10, FULL), answer(20, SUMMARY, shape="list")
    assert after(item, listed).body == {"ID": 7, "n": 2, "text": "long"}
    assert after(listed, answer(30, FULL)).body == FULL, "the item's own answer replaces"
    assert after(answer(5, FULL, shape="list"), listed).body == SUMMARY, "a list replaces what a list wrote"


def test_an_items_answer_that_comes_after_a_later_list_is_asked_again() -> None:
    """What the summary left out would be missing until the next change."""
    outcome = decide(after(answer(20, SUMMARY, shape="list")), answer(10, FULL))
    assert (outcome.change, outcome.doubt) == (None, True)
    assert outcome.listing.body == SUMMARY
    assert outcome.listing.own_url == URL
    again = after(answer(30, FULL), known=outcome.listing)
    assert decide(again, answer(10, FULL)).doubt is False, "and not for ever"


def test_an_items_answer_that_comes_after_a_later_list_laid_over_it_is_asked_again() -> None:
    """The list has moved the numbers on, and told nothing of what it leaves out."""
    known = after(answer(10, FULL), answer(30, {"ID": 7, "n": 1}, shape="list"))
    late = answer(20, {**FULL, "text": "longer"})
    outcome = decide(known, late)
    assert (outcome.change, outcome.doubt) == (None, True)
    assert decide(outcome.listing, late).doubt is False, "once"
    assert decide(known, answer(20, FULL)).doubt is False, "unless it tells what is known"


def test_the_answer_to_a_webhook_that_maps_again_is_not_lost_behind_a_list() -> None:
    unmapped = unmap(after(answer(10, FULL)), 20).listing
    listed = after(answer(40, SUMMARY, shape="list"), known=unmapped)
    outcome = decide(listed, answer(30, FULL, asked=25))
    assert outcome.doubt
    assert after(answer(50, FULL, asked=25), known=outcome.listing).body == FULL


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_ids_of_the_platform_are_learned_in_any_order(order: tuple[int, ...]) -> None:
    answers = [
        answer(10, FULL, mapping=PlatformIds(location_id="1198", resource_id="7843", resource_type="office")),
        answer(20, FULL),
        answer(30, FULL, mapping=PlatformIds(location_id="2000")),
    ]
    known = after(*(answers[index] for index in order))
    assert (known.location_id, known.resource_id, known.resource_type) == ("2000", "7843", "office")


@pytest.mark.parametrize(
    ("item", "gone"),
    [({"status": "deleted"}, True), ({"status": "DELETED"}, True), ({"deleted": True}, True), ({"deleted": 1}, False),
     ({"deleted": "no"}, False), ({"status": "draft"}, False), ({"status": None}, False)],
)  # fmt: skip
def test_an_item_may_say_that_it_is_no_more(item: Json, gone: bool) -> None:
    assert (after(answer(10, {"ID": 7}), answer(20, item)).body is None) is gone


def test_deleted_and_created_again_the_version_goes_on() -> None:
    gone = after(answer(10, {"v": 1}), answer(20, None))
    assert (gone.version, gone.live) == (2, False)
    assert decide(gone, answer(30, None)).change is None, "deleted once"
    outcome = decide(gone, answer(40, {"v": 1}))
    assert (outcome.change, outcome.listing.version) == ("created", 3)
    event = event_of(gone, outcome, reason="resync", delivery_id="d", fetched_at=AT)
    assert (event.previous, event.patch, event.changed_fields, event.delivery_id) == (None, [], [], None)


def test_gone_before_it_was_ever_seen_is_no_event() -> None:
    outcome = decide(NEW, answer(10, None))
    assert (outcome.change, outcome.listing.version) == (None, 0)


# --- unmapped ---------------------------------------------------------------------------------------------------------


def test_unmapped_holds_until_a_later_webhook() -> None:
    """CONTRACT §5.6: against resyncs and answers to earlier webhooks; the later webhook's answer brings it back."""
    live = after(answer(10, {"v": 1}, asked=5))
    outcome = unmap(live, 20)
    assert (outcome.change, outcome.listing.body, outcome.listing.version) == ("deleted", None, 2)
    held = after(answer(30, {"v": 2}, asked=0), answer(40, {"v": 2}, asked=5), known=outcome.listing)
    assert (held.body, held.version, held.unmapped) == (None, 2, 20)
    back = decide(held, answer(50, {"v": 2}, asked=45))
    assert (back.change, back.listing.version, back.listing.unmapped) == ("created", 3, 0)


def test_a_webhook_for_the_list_does_not_map_an_item_again() -> None:
    """CONTRACT §5.1, GUIDE-NOTES: a later webhook for that item."""
    unmapped = unmap(after(answer(10, {"ID": 1}, asked=5)), 20).listing
    held = decide(unmapped, answer(50, {"ID": 1}, asked=45, shape="list"))
    assert (held.change, held.listing.body, held.listing.unmapped) == (None, None, 20)
    told_by_list = after(answer(10, {"ID": 1}, asked=25, shape="list"))
    assert unmap(told_by_list, 20).change == "deleted", "what came late was about the item, the list's webhook was not"


def test_unmapped_twice_or_late_changes_nothing() -> None:
    once = unmap(after(answer(10, {"v": 1})), 20).listing
    assert unmap(once, 20) == Outcome(once)
    assert unmap(once, 15) == Outcome(once)
    newer = after(answer(30, {"v": 1}, asked=25))
    assert unmap(newer, 20) == Outcome(newer), "a later webhook was answered already"


def test_unmapped_of_what_was_never_seen_is_remembered_silently() -> None:
    outcome = unmap(NEW, 20)
    assert outcome.change is None
    assert after(answer(30, {"v": 1}, asked=0), known=outcome.listing).live is False


def test_an_event_of_an_update() -> None:
    before = after(answer(10, {"ID": "7", "capacity": 10}, mapping=PlatformIds(location_id="1198")))
    outcome = decide(before, answer(20, {"ID": "7", "capacity": 12}))
    event = event_of(before, outcome, reason="webhook", delivery_id="d", fetched_at=AT)
    assert (event.change, event.version, event.changed_fields, event.location_id) == (
        "updated",
        2,
        ["capacity"],
        "1198",
    )
    assert (event.previous, event.current) == ({"ID": "7", "capacity": 10}, {"ID": "7", "capacity": 12})
    hand = event_of(before, outcome, reason="hand", delivery_id="d", fetched_at=AT)
    assert hand.delivery_id is None
    assert replace(before) == before
