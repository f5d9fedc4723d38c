"""The checker can fail: each kind of fault, from records made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from ops.ledger import Evidence, Ledger, audit, codes_in_doubt, may_be_lost, unheeded
from sandbox.records import CallRecord, ChangeRecord, Snapshot, TokenRecord, Violation, WebhookRecord
from sandbox.truth import Truth

ROOM = "http://syncaroo/v1/locations/12/resources/7"
ROOM_NOW = {"ID": 7, "capacity": 12}
ROOM_THEN = {"ID": 7, "capacity": 10}


def webhook(order: int, url: str = ROOM, status: int | None = 200, *, at: float = 0.0, **more: Any) -> WebhookRecord:
    return WebhookRecord(
        order_sent=order,
        sent_at=at,
        connection_id=99,
        url=url,
        posted_to="",
        location_id="1198",
        resource_id="7843",
        attribute_type="resources",
        cause="change",
        order_answered=order + 1,
        status=status,
        delivery_id=f"delivery-{order}",
        **more,
    )


def call(order: int, url: str = ROOM, status: int | None = 200, fault: str = "") -> CallRecord:
    return CallRecord(
        order_began=order,
        began_at=0.0,
        method="GET",
        url=url,
        host="syncaroo",
        token="t",
        order_ended=order + 1,
        status=status,
        fault=fault,
    )


def changed(version: int, previous: Any, current: Any, event_id: str = "", **data: Any) -> dict[str, Any]:
    change = "deleted" if current is None else "created" if previous is None else "updated"
    members = {"listingId": "room", "version": version, "change": change, "previous": previous, "current": current}
    return {"id": event_id or f"event-{version}", "type": "listing.changed", "data": {**members, **data}}


def listing(version: int, current: Any, **more: Any) -> dict[str, Any]:
    members = {"listingId": "room", "connectionId": 99, "attributeType": "resources", "itemId": "7"}
    return {**members, "version": version, "current": current, "deleted": current is None, **more}


def snapshot(**lists: Any) -> Snapshot:
    kinds = ("webhooks", "calls", "tokens", "platform", "changes", "violations")
    return Snapshot(order=100, **{kind: lists.get(kind, []) for kind in kinds})


def truth(items: dict[str, dict[str, Any]], expected: list[str] | None = None) -> Truth:
    told = list(items) if expected is None else expected
    return Truth(order=100, items=items, collections={}, gone=[], expected={"99": told})


GOOD = Evidence(
    records=snapshot(webhooks=[webhook(1), webhook(10)], calls=[call(3), call(12)]),
    world=truth({ROOM: ROOM_NOW}),
    events=[changed(1, None, ROOM_THEN), changed(2, ROOM_THEN, ROOM_NOW)],
    listings=[listing(2, ROOM_NOW)],
)


def faults(evidence: Evidence) -> set[str]:
    """The kinds of what does not add up."""
    ledger = audit(evidence)
    assert ledger.adds_up == (not ledger.faults())
    assert ledger.exit_code == (1 if ledger.faults() else 0)
    return {line.partition(":")[0] for line in ledger.faults()}


def with_records(**lists: Any) -> Evidence:
    return replace(GOOD, records=snapshot(**lists))


def dead(delivery_id: str) -> dict[str, Any]:
    return {"id": "1", "queue": "syncaroo.fetch", "reason": "not_found", "body": {"deliveryId": delivery_id}}


def test_what_went_well_adds_up() -> None:
    ledger = audit(GOOD)

    assert ledger.adds_up
    assert ledger.exit_code == 0
    assert ledger.lines() == [
        "webhooks_accepted: 2",
        "webhooks_refused: 0",
        "api_calls: 2",
        "events: 2",
        "duplicates: 0",
        "parked: 0",
        "lost: 0",
        "gaps: 0",
        "clashes: 0",
        "phantoms: 0",
        "replay_differs: 0",
        "stale: 0",
        "overlapping: 0",
        "presented_again: 0",
        "violations: 0",
        "foreign: 0",
    ]


def test_what_is_allowed_is_told_with_its_reason() -> None:
    twice = [*GOOD.events, GOOD.events[0]]
    ledger = audit(replace(GOOD, events=twice, dead_letters=[dead("delivery-1"), dead("delivery-10")]))
    assert ledger.adds_up
    assert ledger.allowed() == ["parked: 2 of syncaroo.fetch not_found", "duplicates: event-1"]


def test_what_went_to_a_stranger_does_not_add_up() -> None:
    assert faults(replace(GOOD, foreign=["GET /v1/locations/1198 with a token"])) == {"foreign"}


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param([], id="never asked"),
        pytest.param([call(3)], id="asked before the last webhook only"),
        pytest.param([call(12, status=503)], id="only a failing answer"),
        pytest.param([call(12, status=None)], id="no answer"),
        pytest.param([call(12, fault="api_truncate")], id="a spoilt answer"),
        pytest.param([call(12, status=404, fault="api_status")], id="a 404 that was a fault"),
        pytest.param([call(12, url=ROOM + "/rates")], id="another target asked"),
    ],
)
def test_an_accepted_webhook_without_a_later_answer_is_lost(calls: list[CallRecord]) -> None:
    assert faults(with_records(webhooks=[webhook(10)], calls=calls)) == {"lost"}


def test_a_webhook_that_was_refused_or_not_sent_is_not_lost() -> None:
    webhooks = [webhook(10, status=503), webhook(20, status=None, lost=True)]

    ledger = audit(with_records(webhooks=webhooks))

    assert ledger.adds_up
    assert (ledger.webhooks_accepted, ledger.webhooks_refused) == (0, 1)


def test_an_answer_that_says_gone_is_an_answer() -> None:
    assert not faults(with_records(webhooks=[webhook(10)], calls=[call(12, status=404)]))


def test_a_parked_webhook_is_not_lost_nor_are_those_before_it_for_the_same_target() -> None:
    evidence = with_records(webhooks=[webhook(10), webhook(20)])

    assert not faults(replace(evidence, dead_letters=[dead("delivery-20")]))
    assert faults(replace(evidence, dead_letters=[dead("delivery-10")])) == {"lost"}, "the later one is not in it"
    assert faults(replace(evidence, dead_letters=[dead("another")])) == {"lost"}
    assert audit(replace(evidence, dead_letters=[dead("delivery-20")])).parked


def test_a_webhook_without_a_target_must_be_parked() -> None:
    evidence = with_records(webhooks=[webhook(10, url="")])

    assert faults(evidence) == {"lost"}
    assert not faults(replace(evidence, dead_letters=[dead("delivery-10")]))


def test_a_parked_page_names_its_delivery_in_its_source() -> None:
    evidence = with_records(webhooks=[webhook(10)])
    letter = {**dead(""), "body": {"source": {"deliveryId": "delivery-10"}}}

    assert not faults(replace(evidence, dead_letters=[letter]))


def test_duplicates_are_counted_and_allowed() -> None:
    ledger = audit(replace(GOOD, events=[*GOOD.events, GOOD.events[0], GOOD.events[0]]))

    assert ledger.adds_up
    assert ledger.duplicates == ("event-1", "event-1")
    assert ledger.events == 2


def test_events_out_of_order_are_put_in_order_by_version() -> None:
    assert not faults(replace(GOOD, events=list(reversed(GOOD.events))))


def test_other_events_only_count() -> None:
    other = {"id": "g", "type": "grant.changed", "data": {"state": "active"}}

    ledger = audit(replace(GOOD, events=[*GOOD.events, other]))

    assert ledger.adds_up
    assert ledger.events == 3


@pytest.mark.parametrize(
    ("events", "kinds"),
    [
        pytest.param([changed(2, ROOM_THEN, ROOM_NOW)], {"gaps"}, id="the first is missing"),
        pytest.param([changed(1, None, ROOM_THEN)], {"gaps", "replay_differs"}, id="the last is missing"),
        pytest.param([], {"gaps", "replay_differs"}, id="all are missing"),
        pytest.param([*GOOD.events, changed(2, ROOM_THEN, ROOM_NOW, "twin")], {"clashes"}, id="two for one version"),
        pytest.param(
            [*GOOD.events, changed(3, ROOM_NOW, ROOM_THEN)], {"phantoms", "replay_differs"}, id="beyond the store"
        ),
        pytest.param([*GOOD.events, changed(1, None, ROOM_NOW, listingId="x")], {"phantoms", "replay_differs"},
                     id="an unknown listing"),
        pytest.param([changed(1, None, ROOM_NOW), changed(2, ROOM_NOW, ROOM_NOW)], {"phantoms"}, id="no change"),
        pytest.param([changed(1, None, {"ID": 7}), changed(2, ROOM_THEN, ROOM_NOW)], {"phantoms"}, id="a broken chain"),
        pytest.param([changed(1, None, ROOM_THEN, change="updated"), GOOD.events[1]], {"phantoms"}, id="a wrong word"),
        pytest.param([changed(1, None, ROOM_NOW), changed(2, ROOM_NOW, ROOM_THEN)], {"replay_differs"},
                     id="another end"),
    ],
)  # fmt: skip
def test_events_must_tell_every_version_once_and_end_in_the_stored_state(
    events: list[dict[str, Any]], kinds: set[str]
) -> None:
    assert faults(replace(GOOD, events=events)) == kinds


def test_a_deleted_listing_is_replayed_to_nothing_and_may_come_back() -> None:
    gone = changed(3, ROOM_NOW, None)
    deleted = replace(GOOD, world=truth({}), events=[*GOOD.events, gone], listings=[listing(3, None)])
    back = changed(4, None, ROOM_NOW)
    again = replace(GOOD, events=[*GOOD.events, gone, back], listings=[listing(4, ROOM_NOW)])

    assert not faults(deleted)
    assert not faults(again)
    assert faults(replace(deleted, listings=[listing(3, ROOM_NOW)])) == {"replay_differs", "stale"}


@pytest.mark.parametrize(
    ("world", "said"),
    [
        pytest.param(truth({ROOM: ROOM_THEN}), "differs in capacity", id="differs"),
        pytest.param(truth({ROOM: {"ID": 7, "capacity": 12.0}}), "differs in capacity", id="another number"),
        pytest.param(truth({}), "is no more", id="left over"),
        pytest.param(truth({ROOM: ROOM_NOW, ROOM + "/rates/8": {"ID": 8}}), "rates/8: is missing", id="missing"),
    ],
)
def test_the_store_must_be_like_the_world(world: Truth, said: str) -> None:
    ledger = audit(replace(GOOD, world=world))

    assert faults(replace(GOOD, world=world)) == {"stale"}
    assert said in ledger.stale[0]


def test_what_no_webhook_told_need_not_be_known() -> None:
    assert not faults(replace(GOOD, world=truth({ROOM: ROOM_NOW, ROOM + "/rates/8": {"ID": 8}}, expected=[ROOM])))


@pytest.mark.parametrize(
    ("told", "listings", "is_unheeded"),
    [
        pytest.param([webhook(10)], [listing(2, ROOM_NOW)], False, id="heeded"),
        pytest.param([webhook(10)], [listing(1, ROOM_THEN)], True, id="not heeded"),
        pytest.param([webhook(10)], [], True, id="never written"),
        pytest.param([webhook(4), webhook(10)], [listing(1, ROOM_THEN)], True, id="told before and after"),
        pytest.param([webhook(4)], [listing(1, ROOM_THEN)], False, id="told before the change alone"),
        pytest.param([webhook(10, status=503)], [listing(1, ROOM_THEN)], False, id="refused"),
        pytest.param([webhook(10, status=None, lost=True)], [listing(1, ROOM_THEN)], False, id="never sent"),
    ],
)
def test_what_an_accepted_webhook_told_is_in_the_store(
    told: list[WebhookRecord], listings: list[dict[str, Any]], is_unheeded: bool
) -> None:
    """Whatever else would make good for it."""
    change = ChangeRecord(order=5, at=0.0, kind="price", url=ROOM, deleted=False)
    evidence = replace(with_records(webhooks=told, changes=[change]), listings=listings)
    assert bool(unheeded(evidence)) == is_unheeded
    assert not unheeded(replace(evidence, dead_letters=[dead("delivery-10")]))


def test_of_what_is_gone_nothing_may_be_left() -> None:
    change = ChangeRecord(order=5, at=0.0, kind="remove", url=ROOM, deleted=True)
    left = replace(with_records(webhooks=[webhook(10)], changes=[change]), world=truth({}))
    assert len(unheeded(left)) == 1
    assert not unheeded(replace(left, listings=[listing(3, None)]))


def test_violations_and_overlapping_token_requests_are_faults() -> None:
    breach = Violation(order=5, at=0.0, kind="accept", text="Accept must be application/json")
    tokens = [
        TokenRecord(order_began=1, began_at=0.0, grant_type="refresh_token", order_ended=4),
        TokenRecord(order_began=3, began_at=0.0, grant_type="refresh_token", order_ended=5),
    ]

    assert faults(with_records(violations=[breach])) == {"violations"}
    assert faults(with_records(tokens=tokens)) == {"overlapping"}
    assert not faults(
        with_records(tokens=[tokens[0], msgspec.structs.replace(tokens[1], order_began=5, order_ended=6)])
    )


def test_what_may_not_have_come_is_no_answer_and_no_overlap() -> None:
    """A line that was dead from number 2 to 4: only what was under way then proves nothing."""
    tokens = [presented(1, order_ended=4), presented(3, "t2"), presented(6)]
    reuse = Violation(order=6, at=0.0, kind="reuse", text="a used refresh_token was presented again")

    assert faults(with_records(tokens=tokens, violations=[reuse])) == {"overlapping", "presented_again"}
    assert not faults(replace(with_records(tokens=tokens, violations=[reuse]), doubtful=[(2, 4)]))
    assert faults(replace(with_records(tokens=[*tokens, presented(8)]), doubtful=[(2, 4)])) == {"presented_again"}


def presented(order: int, token: str = "t1", outcome: str = "issued", **more: Any) -> TokenRecord:
    return TokenRecord(
        order_began=order,
        began_at=0.0,
        grant_type="refresh_token",
        presented=token,
        outcome=outcome,
        **{"order_ended": order + 1, **more},
    )


@pytest.mark.parametrize(
    ("first", "is_fault"),
    [
        (presented(1), True),
        (presented(1, outcome="invalid_grant"), True),
        (presented(1, outcome="reused_after_drop"), True),
        (presented(1, outcome="invalid_grant", fault="token_used"), True),
        (presented(1, outcome="dropped", fault="token_drop"), False),
        (presented(1, outcome="failed", fault="token_status"), False),
        (presented(1, fault="token_html"), False),
        (presented(1, fault="token_slow", ended_at=2.0), True),
        (presented(1, fault="token_slow", ended_at=9.0), False),
        (presented(1, fault="token_status"), False),
        (presented(1, outcome="", order_ended=None), False),
        (presented(1, token="t0"), False),
    ],
)
def test_a_token_is_presented_again_only_when_nobody_knows_what_became_of_it(
    first: TokenRecord, is_fault: bool
) -> None:
    """CONTRACT §5.4."""
    assert faults(with_records(tokens=[first, presented(5)])) == ({"presented_again"} if is_fault else set())


@pytest.mark.parametrize(
    ("crash", "is_fault"),
    [((3, 4), False), ((2, 2), False), ((0, 1), False), ((5, 9), True), ((6, 9), True), ((0, 0), True)],
)
def test_who_died_may_not_know_the_answer_before_its_death_and_knows_those_before(
    crash: tuple[int, int], is_fault: bool
) -> None:
    """The answer to number 1 came at 2, another token's to number 4 at 5."""
    tokens = [presented(1), presented(4, "t2"), presented(8)]
    assert faults(replace(with_records(tokens=tokens), crashes=[crash])) == ({"presented_again"} if is_fault else set())


def test_a_person_may_be_called_for_what_was_used_up_and_refused_later() -> None:
    tokens = [
        presented(1, "t1", issued="t2"),
        presented(4, "t2", issued="t3", fault="token_drop"),
        presented(8, "t2", outcome="reused_after_drop"),
        presented(12, "t4", issued="t5"),
        presented(16, "t6", outcome="dropped", fault="token_drop"),
    ]
    evidence = with_records(tokens=tokens)
    assert may_be_lost(evidence) == 1
    assert may_be_lost(replace(evidence, doubtful=[(13, 13)])) == 1, "it was never refused"
    refused = with_records(tokens=[*tokens, presented(20, "t4", outcome="reused")])
    assert may_be_lost(refused) == 1, "its answer came"
    assert may_be_lost(replace(refused, doubtful=[(13, 13)])) == 2
    assert may_be_lost(replace(refused, crashes=[(14, 15)])) == 2


def test_a_code_may_be_refused_whose_answer_did_not_come() -> None:
    code = {"grant_type": "authorization_code", "issued": "t2"}
    tokens = [
        msgspec.structs.replace(presented(1, "c1"), **code),
        msgspec.structs.replace(presented(4, "c2", fault="token_drop"), **code),
        presented(8, "t2", issued="t3", fault="token_drop"),
    ]
    assert codes_in_doubt(with_records(tokens=tokens)) == 1


def test_what_was_answered_long_before_a_crash_has_been_kept() -> None:
    """Another call, which began right before the crash, is its clock."""
    tokens = [presented(1, ended_at=0.5), presented(6)]
    for moment, found in ((10.0, set[str]()), (11.0, {"presented_again"})):
        clock = msgspec.structs.replace(call(4), began_at=moment)
        evidence = with_records(tokens=tokens, calls=[*GOOD.records.calls, clock])
        assert faults(replace(evidence, crashes=[(4, 5)])) == found


def target(delivery_id: str | None, url: str = ROOM) -> dict[str, Any]:
    return {"connectionId": 99, "url": url, "deliveryId": delivery_id}


@pytest.mark.parametrize(
    ("sent", "known", "is_lost"),
    [
        pytest.param([webhook(1), webhook(10, at=100.0)], "delivery-10", False, id="the last one"),
        pytest.param([webhook(1), webhook(10, at=100.0)], "delivery-1", True, id="one of long before"),
        pytest.param([webhook(1), webhook(10, at=10.0)], "delivery-1", False, id="one that may have been redelivered"),
        pytest.param([webhook(10)], None, True, id="none"),
        pytest.param([webhook(1), webhook(10, at=100.0, status=None)], "delivery-1", False, id="not accepted, or so"),
        pytest.param([webhook(1), webhook(10, at=100.0, status=None, lost=True)], "delivery-1", False, id="never sent"),
    ],
)
def test_a_target_knows_the_last_webhook_that_was_accepted(
    sent: list[WebhookRecord], known: str | None, is_lost: bool
) -> None:
    """Whatever else asked for it since."""
    evidence = replace(with_records(webhooks=sent, calls=[call(50)]), targets=[target(known)])
    assert faults(evidence) == ({"lost"} if is_lost else set())
    assert not faults(replace(evidence, dead_letters=[dead("delivery-10")]))
    earlier = faults(replace(evidence, dead_letters=[dead("delivery-1")]))
    assert earlier == faults(evidence), "what was parked before it makes good nothing that came later"


def test_a_request_without_a_token_presents_none() -> None:
    nothing = [presented(order, token="", outcome="invalid_request") for order in (1, 5)]

    assert not faults(with_records(tokens=nothing))


def test_long_lists_are_cut() -> None:
    webhooks = [webhook(order, url=f"{ROOM}{order}") for order in range(1, 31)]

    ledger = audit(with_records(webhooks=webhooks))

    assert isinstance(ledger, Ledger)
    assert "lost: 30" in ledger.lines()
    assert len(ledger.faults()) == 21
    assert ledger.faults()[-1] == "lost: and 10 more"
