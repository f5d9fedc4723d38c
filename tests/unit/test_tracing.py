"""common.tracing: contexts as text, spans that hold no secret, and nothing at all when it is off."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr
from yarl import URL

from common import tracing
from common.broker.consumer import Delivery
from common.broker.following import followed, ids_of, in_hand
from common.codec import dumps
from common.errors import Permanent, SettingsError, UpstreamFailed
from common.settings import TraceSettings

FOREIGN = f"00-{'a' * 32}-{'b' * 16}-01"
OTHER = f"00-{'c' * 32}-{'d' * 16}-01"
SETTINGS = TraceSettings(otel_exporter_otlp_endpoint="http://127.0.0.1:1")


class Exported:
    """What has ended, by name."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    def __getitem__(self, name: str) -> ReadableSpan:
        [one] = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return one


@pytest.fixture
def spans() -> Iterator[Exported]:
    found = Exported()
    tracing.start_with(SimpleSpanProcessor(found.exporter), SETTINGS, "test")
    yield found
    tracing.stop()


def test_off_nothing_is_loaded_and_nothing_is_done() -> None:
    """T-TRACE: neither the library nor what it stands on, in any process of ours."""
    code = """
import sys
import ingress.__main__, workers.__main__
from importlib import import_module
from common import tracing
from common.settings import TraceSettings
for role in workers.__main__.ROLES:
    import_module(f"workers.{role}.worker")
tracing.start(TraceSettings(), "test")
assert tracing.span("a") is tracing.span("b")
with tracing.span("a", parent="x", links=["y"]):
    tracing.note({"a": 1})
    assert tracing.current() is None
tracing.stop()
print(sorted(name for name in sys.modules if name.split(".")[0] in ("opentelemetry", "requests", "google")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
    assert done.stdout.strip() == "[]"


def test_a_variable_that_the_library_cannot_use_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "0")
    settings = TraceSettings(otel_exporter_otlp_endpoint="http://127.0.0.1:9")
    with pytest.raises(SettingsError, match=r"^OTEL_BSP_MAX_QUEUE_SIZE: one of them"):
        tracing.start(settings, "test")
    assert not tracing.is_on()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        f"{FOREIGN} ",
        f"00-{'A' * 32}-{'b' * 16}-01",
        f"01-{'a' * 32}-{'b' * 16}-01",
        f"00-{'0' * 32}-{'b' * 16}-01",
    ],
)
def test_what_is_no_context_is_nobodys_parent(spans: Exported, text: str) -> None:
    with tracing.span("one", parent=text, links=[text]):
        pass
    assert spans["one"].parent is None
    assert not spans["one"].links


def test_a_context_goes_out_as_it_came_in(spans: Exported) -> None:
    with tracing.span("one", parent=FOREIGN, links=[OTHER]):
        inner = tracing.current()
        with tracing.span("two"):
            pass
    one, two = spans["one"], spans["two"]
    assert one.parent is not None
    assert f"{one.parent.trace_id:x}-{one.parent.span_id:x}" == f"{'a' * 32}-{'b' * 16}"
    assert [f"{link.context.trace_id:x}" for link in one.links] == ["c" * 32]
    assert inner == f"00-{'a' * 32}-{one.context.span_id:016x}-01"
    assert two.parent is not None
    assert two.parent.span_id == one.context.span_id
    assert tracing.current() is None


def test_who_is_not_sampled_says_so_to_those_who_follow() -> None:
    found = Exported()
    settings = SETTINGS.model_copy(update={"otel_traces_sampler": "parentbased_always_off"})
    tracing.start_with(SimpleSpanProcessor(found.exporter), settings, "test")
    try:
        with tracing.span("one"):
            assert not _is_sampled(tracing.current())
        with tracing.span("two", parent=FOREIGN):
            assert _is_sampled(tracing.current())
    finally:
        tracing.stop()
    assert [span.name for span in found.exporter.get_finished_spans()] == ["two"]


def _is_sampled(traceparent: str | None) -> bool:
    return bool(int((traceparent or "")[-2:], 16) & 1)


@pytest.mark.parametrize(
    ("sampler", "kept"),
    [("always_on", True), ("always_off", False), ("traceidratio", False), ("parentbased_traceidratio", False)],
)
def test_samplers_by_their_names(sampler: str, kept: bool) -> None:
    found = Exported()
    settings = SETTINGS.model_copy(update={"otel_traces_sampler": sampler, "otel_traces_sampler_arg": 0.0})
    tracing.start_with(SimpleSpanProcessor(found.exporter), settings, "test")
    with tracing.span("one"):
        pass
    tracing.stop()
    assert bool(found.exporter.get_finished_spans()) is kept


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Permanent("bad_item", "s3cret"), "bad_item"),
        (UpstreamFailed("s3cret", status=503), "UpstreamFailed"),
        (ValueError("s3cret"), "ValueError"),
    ],
)
def test_an_error_is_told_by_its_kind_and_not_by_what_it_says(spans: Exported, error: Exception, status: str) -> None:
    """T-TRACE."""
    with pytest.raises(type(error)), tracing.span("one"):
        raise error
    assert spans["one"].status.description == status
    assert not spans["one"].status.is_ok
    assert "s3cret" not in spans["one"].to_json()


def test_of_a_call_the_query_is_not_told() -> None:
    """T-TRACE."""
    told = tracing.request("GET", URL("http://user:s3cret@api.test:81/v1/a%20b?token=s3cret#s3cret", encoded=True))
    assert told == {
        "http.request.method": "GET", "server.address": "api.test", "server.port": 81, "url.scheme": "http",
        "url.path": "/v1/a%20b",
    }  # fmt: skip


def test_who_we_are(spans: Exported) -> None:
    with tracing.span("one"):
        pass
    assert spans["one"].resource.attributes["service.name"] == "gateway-test"


def test_log_lines_say_in_which_trace_they_are(spans: Exported) -> None:
    with tracing.span("one", parent=FOREIGN):
        assert structlog.contextvars.get_contextvars() == {"trace_id": "a" * 32}
    assert structlog.contextvars.get_contextvars() == {}


def delivery(body: Any = None, traceparent: Any = None) -> Delivery:
    headers = {} if traceparent is None else {"traceparent": traceparent}
    return Delivery(dumps(body if body is not None else {"connectionId": 99, "deliveryId": "d"}), headers, "fetch.0")


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ({"connectionId": 99, "deliveryId": "d"}, {"connection_id": 99, "delivery_id": "d"}),
        ({"connectionId": 99, "source": {"deliveryId": "d", "x": 1}}, {"connection_id": 99, "delivery_id": "d"}),
        ({"connectionId": 99, "source": {"deliveryId": None}}, {"connection_id": 99}),
        ({"connectionId": "x"}, {}),
        ([1], {}),
    ],
)
def test_which_message_it_is(body: Any, ids: dict[str, Any]) -> None:
    assert ids_of(delivery(body)) == ids


def test_a_body_that_is_no_json_is_nobodys() -> None:
    assert ids_of(Delivery(b"\xff{", {}, "fetch.0")) == {}


def test_one_message_is_followed_at_once(spans: Exported) -> None:
    with in_hand("q", [delivery(traceparent=FOREIGN)]):
        assert structlog.contextvars.get_contextvars() == {
            "connection_id": 99, "delivery_id": "d", "trace_id": "a" * 32,
        }  # fmt: skip
        assert (tracing.current() or "").split("-")[1] == "a" * 32
    span = spans["process q"]
    attributes = dict(span.attributes or {})
    assert attributes["gateway.delivery_id"] == "d"
    assert attributes["messaging.destination.name"] == "q"


def test_several_messages_are_each_in_a_trace_of_their_own(spans: Exported) -> None:
    with in_hand("q", [delivery(traceparent=FOREIGN), delivery(traceparent=OTHER), delivery()]) as hand:
        assert tracing.current() is None
        assert structlog.contextvars.get_contextvars() == {}
        found = []
        for one in hand.deliveries:
            with followed(one):
                found.append((tracing.current() or "").split("-")[1])
    assert found[:2] == ["a" * 32, "c" * 32]
    assert len(set(found)) == 3
    assert len(spans.exporter.get_finished_spans()) == 3


def test_what_is_done_has_not_failed_with_what_comes_behind_it(spans: Exported) -> None:
    def handle() -> None:
        with in_hand("q", [delivery(), delivery(), delivery()]) as hand:
            hand.done(1)
            assert len(hand.deliveries) == 2
            raise Permanent("bad_item", "no")

    with pytest.raises(Permanent):
        handle()
    assert [one.status.is_ok for one in spans.exporter.get_finished_spans()] == [True, False, False]


@pytest.mark.parametrize("header", [b"\xff", 7, "x", ["x"]])
def test_a_header_of_a_stranger_begins_a_trace(spans: Exported, header: Any) -> None:
    with in_hand("q", [delivery(traceparent=header)]):
        pass
    assert spans["process q"].parent is None


def test_ids_are_bound_with_tracing_off_too() -> None:
    with in_hand("q", [delivery(traceparent=FOREIGN)]) as hand:
        assert hand.deliveries[0].span is None
        assert structlog.contextvars.get_contextvars() == {"connection_id": 99, "delivery_id": "d"}


def test_headers_for_the_collector_are_secret_and_are_masked_in_parts() -> None:
    settings = TraceSettings(otel_exporter_otlp_headers=SecretStr("authorization=Bearer%20s3cret, x-key=k%2C2"))
    assert settings.headers() == {"authorization": "Bearer s3cret", "x-key": "k,2"}
    assert "s3cret" not in repr(settings)
    assert {"s3cret", "Bearer s3cret", "k,2"} <= set(settings.secrets())


def test_each_kind_of_trouble_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    tracing._tell_troubles_once()
    logger = logging.getLogger("opentelemetry.exporter.test")
    with structlog.testing.capture_logs() as told:
        for number in range(5):
            logger.warning("Queue full, dropping %s.", number)
            logger.error("Failed: %s", number)
            logger.info("of no interest")
    assert [line["reason"] for line in told] == ["Queue full, dropping 0.", "Failed: 0"]
