"""`ops.prove.plan`: what goes wrong when."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.prove.plan import Kind, planned
from ops.prove.troubles import happenings
from ops.prove.troubles.syncaroo import FAULTS, OF_TOKENS
from ops.prove.wires import BROKER, STORE, SYNCAROO, WEBHOOKS
from sandbox.faults import KINDS as KNOWN
from sandbox.faults import Fault

KINDS = [
    Kind("a", ("one",)),
    Kind("b", ("one",), (5.0, 9.0)),
    Kind("c", ("two",)),
    Kind("d", ("three",)),
    Kind("e", ("one", "two")),
]


@given(st.integers(), st.floats(0, 600))
def test_no_place_is_in_two_troubles_and_all_are_over_in_time(seed: int, seconds: float) -> None:
    plan = planned(KINDS, seed, seconds)
    assert all(0 < one.at < one.over <= seconds for one in plan)
    for one, other in combinations(plan, 2):
        assert not {*one.kind.places} & {*other.kind.places} or one.over < other.at or other.over < one.at
    assert all(one.kind.seconds[0] <= one.seconds <= one.kind.seconds[1] for one in plan)


def test_a_seed_gives_the_same_plan_again_and_another_one_another() -> None:
    assert planned(KINDS, 1, 300) == planned(KINDS, 1, 300)
    assert planned(KINDS, 1, 300) != planned(KINDS, 2, 300)
    assert planned(KINDS, 1, 300)[:20] == planned(KINDS, 1, 600)[:20]


@pytest.mark.parametrize("postgresql", [False, True])
def test_in_ten_minutes_everything_goes_wrong(postgresql: bool) -> None:
    lines = (BROKER, SYNCAROO, WEBHOOKS, *([STORE] if postgresql else []))
    kinds = happenings(postgresql=postgresql, wires=lines, clocks_to_put=("processes'", "database's"))
    assert {trouble.kind for trouble in planned(list(kinds), 7, 600)} == kinds.keys()


def test_what_is_ordered_of_the_stand_in_is_known_there() -> None:
    for _, kind, parameters in (*FAULTS, *OF_TOKENS):
        fault = Fault(kind=kind, **{name: value for name, value in parameters.items() if name != "foreign"})
        assert fault.kind in KNOWN
