"""The one retry policy, and the topology as one table."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.broker.retry import RetryPolicy, jittered
from common.broker.topology import (
    DELAYED_STAGES,
    EVENTS,
    LOG,
    SHARDS,
    SNAPSHOT_DELAY,
    STAGES,
    WORK,
    Stage,
    dead_key,
    delay_key,
    diagram,
    duration_name,
    event_queues,
    shard_key,
    work_queues,
)
from common.settings import RetrySettings, parse_duration

DELAYS = [timedelta(seconds=s) for s in (2, 10, 60)]


@pytest.mark.parametrize(
    ("give_up", "expected"),
    [
        (timedelta(0), []),
        (timedelta(seconds=1), []),
        (timedelta(seconds=2), [2]),
        (timedelta(seconds=12), [2, 10]),
        (timedelta(seconds=71), [2, 10]),
        (timedelta(seconds=72), [2, 10, 60]),
        (timedelta(seconds=192), [2, 10, 60, 60, 60]),
    ],
)
def test_delays_come_in_order_the_last_repeats_and_there_is_an_end(give_up: timedelta, expected: list[int]) -> None:
    policy = RetryPolicy(DELAYS, give_up)
    found: list[float] = []
    while (delay := policy.delay(len(found))) is not None:
        found.append(delay.total_seconds())
    assert found == expected
    assert policy.delay(10**6) is None
    assert policy.nth(10**6) == DELAYS[-1], "what is retried without end"


def test_the_contracts_defaults_last_72_hours() -> None:
    settings = RetrySettings.model_construct()
    policy = RetryPolicy(settings.retry_delays, settings.retry_for)
    attempts = 0
    while policy.delay(attempts) is not None:
        attempts += 1
    waited = sum((policy.nth(n) for n in range(attempts)), timedelta(0))
    assert timedelta(hours=71) < waited <= timedelta(hours=72)


@given(st.integers(1, 10**6))
def test_jitter_halves_at_most(millis: int) -> None:
    delay = timedelta(milliseconds=millis)
    assert delay / 2 <= jittered(delay) <= delay


@pytest.mark.parametrize(
    ("delay", "name"),
    [("2s", "2s"), ("60s", "1m"), ("90s", "90s"), ("5m", "5m"), ("3600s", "1h"), ("36h", "36h"), ("48h", "2d"),
     ("500ms", "500ms"), ("1.5s", "1500ms"), ("0", "0ms")],
)  # fmt: skip
def test_durations_have_one_name(delay: str, name: str) -> None:
    assert duration_name(parse_duration(delay)) == name
    assert parse_duration(name) == parse_duration(delay)


@given(st.integers(-(2**63), 2**64))
def test_a_connection_has_one_shard(connection_id: int) -> None:
    stage, _, shard = shard_key("fetch", connection_id).partition(".")
    assert stage == "fetch"
    assert 0 <= int(shard) < SHARDS


def test_shards_are_stable_and_spread() -> None:
    assert shard_key("fetch", 99) == "fetch.13", "bindings of operators hold it"
    assert len({shard_key("fetch", one) for one in range(2000)}) == SHARDS


def test_the_diagram_lists_every_queue_and_key() -> None:
    lines = diagram(DELAYS).splitlines()
    bound = [(queue, one) for queue in [*work_queues(DELAYS), *event_queues()] for one in queue.bindings]
    for queue, binding in bound:
        assert any({binding.exchange, binding.key, queue.name} <= set(line.split()) for line in lines), queue.name
    assert len(lines) == 1 + len(bound)


def _takes(pattern: str, key: str) -> bool:
    words, given_ = pattern.split("."), key.split(".")
    return len(words) == len(given_) and all(word in ("*", one) for word, one in zip(words, given_, strict=True))


def _queues_for(key: str) -> list[str]:
    return [
        queue.name
        for queue in [*work_queues(DELAYS), *event_queues()]
        for binding in queue.bindings
        if binding.exchange == WORK and _takes(binding.key, key)
    ]


@pytest.mark.parametrize("stage", [*STAGES, "snapshot"])
def test_every_key_that_is_published_leads_to_exactly_one_queue(stage: Stage) -> None:
    assert _queues_for(shard_key(stage, 99)) == [f"syncaroo.{stage}"]
    assert _queues_for(f"{stage}.retry") == [f"syncaroo.{stage}"]
    assert _queues_for(dead_key(stage)) == [f"syncaroo.{stage}.dead"]
    for delay in [SNAPSHOT_DELAY] if stage == "snapshot" else DELAYS:
        found = _queues_for(delay_key(stage, delay))
        assert found == ([f"syncaroo.{stage}.delay.{duration_name(delay)}"] if stage in DELAYED_STAGES else [])


def test_queues_say_everything_that_versions_of_the_broker_differ_in() -> None:
    """B1, B10: an explicit delivery limit and dead-letter target; time to live by queue, not by message."""
    log, *snapshot = event_queues()
    for queue in [*work_queues(DELAYS), *snapshot]:
        assert queue.arguments["x-queue-type"] == "quorum"
        if ".delay." in queue.name:
            assert queue.arguments["x-message-ttl"] > 0
            (target,) = _queues_for(queue.arguments["x-dead-letter-routing-key"])
            assert queue.name.startswith(target)
        else:
            assert queue.arguments["x-delivery-limit"] > 0
        if not queue.name.endswith(".dead"):
            assert queue.arguments["x-dead-letter-exchange"] == WORK
            assert queue.arguments["x-dead-letter-strategy"] == "at-least-once"
    assert [(one.exchange, one.key) for one in log.bindings] == [(EVENTS, "#"), (LOG, "#")]
