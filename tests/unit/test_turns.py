"""Turns: each connection's next one, never behind what is claimed already."""

from __future__ import annotations

from common.store.turns import RESYNC, RESYNC_ITEM, WEBHOOK, Latest, Turns


def test_a_busy_connection_lines_up_and_an_idle_one_begins_where_the_claims_are() -> None:
    turns = Turns(Latest(webhook=100), {1: Latest(webhook=5000), 2: Latest(webhook=7)})
    assert [turns.next(1, WEBHOOK) for _ in range(3)] == [5001, 5002, 5003]
    assert [turns.next(2, WEBHOOK) for _ in range(3)] == [101, 102, 103], "it saved nothing up"


def test_resyncs_have_turns_of_their_own() -> None:
    turns = Turns(Latest(webhook=100, resync=20), {1: Latest(webhook=5, resync=6)})
    assert [turns.next(1, RESYNC), turns.next(1, RESYNC_ITEM), turns.next(1, WEBHOOK)] == [21, 22, 101]
    assert turns.given == {1: Latest(webhook=101, resync=22)}


def test_who_was_given_nothing_is_not_written() -> None:
    turns = Turns(Latest(webhook=100), {1: Latest(), 2: Latest()})
    turns.next(2, WEBHOOK)
    assert set(turns.given) == {2}
