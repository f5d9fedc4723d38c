"""`ops.prove.complaints`: what has no reason, and what has one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import structlog

from common.logs import bound
from ops.prove.complaints import REFUSED, errors, odd_answers, odd_losses
from sandbox.records import WebhookRecord
from tests.unit.test_ledger import GOOD, presented, webhook, with_records


def sent(order: int, status: int | None, seconds: float = 0.1, **more: Any) -> WebhookRecord:
    return webhook(order, status=status, answered_at=seconds, **more)


@pytest.mark.parametrize(
    ("one", "is_odd"),
    [
        pytest.param(sent(10, 200), False, id="accepted"),
        pytest.param(sent(10, 200, 6.0), True, id="accepted late"),
        pytest.param(sent(25, 200, 6.0), False, id="accepted late, as nobody heard it"),
        pytest.param(sent(10, 503), False, id="somebody was away"),
        pytest.param(sent(10, 503, 6.0), True, id="refused late"),
        pytest.param(sent(10, None, 10.0), True, id="no answer"),
        pytest.param(sent(19, None, 10.0), False, id="no answer, as nobody heard it: it was under way from 19 to 20"),
        pytest.param(sent(31, None, 10.0), True, id="no answer, after that"),
        pytest.param(sent(10, None, lost=True), False, id="never sent"),
        pytest.param(sent(10, 500), True, id="an answer there is not"),
        pytest.param(sent(10, 401), True, id="its token was right"),
        pytest.param(sent(45, 401), False, id="its token was wrong"),
        pytest.param(sent(100, 503), False, id="refused as long as something is wrong"),
        pytest.param(sent(101, 503), True, id="refused when nothing is wrong any more"),
    ],
)
def test_an_answer_has_a_reason(one: WebhookRecord, is_odd: bool) -> None:
    """Nobody heard the ingress from number 20 to 30; tokens were wrong from 40 to 50; from 100 on all was well."""
    assert bool([*odd_answers([one], [(20, 30)], [(40, 50)], 100)]) == is_odd


def told(*states: str) -> list[dict[str, Any]]:
    return [{"id": str(n), "type": "grant.changed", "data": {"state": state}} for n, state in enumerate(states)]


@pytest.mark.parametrize(
    ("states", "are_odd"),
    [
        (["active"], False),
        (["active", "needs_authorisation", "active"], False),
        (["active", "needs_authorisation"], True),
        (["active", "needs_authorisation", "needs_authorisation", "active"], True),
        (["active", "needs_authorisation", "active", "needs_authorisation", "active"], True),
    ],
)
def test_access_is_lost_as_often_as_an_answer_was(states: list[str], are_odd: bool) -> None:
    """Once, here."""
    tokens = [presented(1, issued="t2", fault="token_drop"), presented(4, outcome="reused_after_drop")]
    events = told(*states)
    evidence = replace(with_records(tokens=tokens), events=[*GOOD.events, *events, *events[:1]])
    assert bool([*odd_losses(evidence, 0)]) == are_odd
    assert [*odd_losses(evidence, 1)], "no code was presented"


def test_errors_are_found_whatever_else_their_lines_say() -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        log = structlog.get_logger()
        with bound(connection_id=99):
            log.error("fetch.bug")
        log.critical(REFUSED, reason="")
        log.warning("fetch.waiting")
    made = [json.dumps({**line, "level": line["log_level"]}) for line in lines]
    python = "RuntimeWarning: coroutine 'Connection.close' was never awaited"
    assert [*errors("\n".join([*made, "not JSON", python, "Traceback (most recent call last):"]))] == [
        "fetch.bug",
        REFUSED,
        python,
        "Traceback (most recent call last):",
    ]
