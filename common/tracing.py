"""Traces: one from a webhook to its event. The only module that knows OpenTelemetry.

Off unless `OTEL_EXPORTER_OTLP_ENDPOINT` is set; then nothing of the library is loaded, and all of this does nothing.
On: spans are kept in bounded memory and sent by a thread of the library; a collector that is away costs spans alone.

A context travels as text, W3C's `traceparent`: in the AMQP header of that name, and in the store beside what waits.
Names and attributes hold ids, paths and statuses; never a query, a body, or what an exception says.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal

from common.errors import Permanent, SettingsError
from common.ids import new_id
from common.logs import bound, get_logger
from common.settings import TraceSettings

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.sampling import Sampler
    from yarl import URL

HEADER = "traceparent"
EXPORT_SECONDS = 3.0
"""How long one export may take, with all its tries."""
FLUSH_SECONDS = 3.0
"""How long the end of a process waits for what is not sent yet."""

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int | bool | None]
"""One without a value is left out."""

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_NOTHING: AbstractContextManager[None] = nullcontext()

log = get_logger(__name__)

_tracer: trace.Tracer | None = None
_provider: TracerProvider | None = None


def start(settings: TraceSettings, process: str) -> None:
    """Trace from now on, if there is an endpoint; `process` is who we are to the collector when no name is set.

    Raises:
        SettingsError: the library cannot use an `OTEL_` variable that it reads by itself.
    """
    if settings.otel_exporter_otlp_endpoint is None:
        return
    try:
        _start(settings, process)
    except ValueError:  # the library does not say which
        known = {name.upper() for name in TraceSettings.model_fields}
        names = sorted(name for name in os.environ if name.startswith("OTEL_") and name not in known)
        raise SettingsError([f"{', '.join(names)}: one of them has a value that tracing cannot use"]) from None


def _start(settings: TraceSettings, process: str) -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # only when on
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  # as above

    _tell_troubles_once()
    exporter = OTLPSpanExporter(
        endpoint=f"{settings.otel_exporter_otlp_endpoint}/v1/traces",
        headers=settings.headers(),
        timeout=EXPORT_SECONDS,
    )
    start_with(BatchSpanProcessor(exporter), settings, process)


def start_with(processor: SpanProcessor, settings: TraceSettings, process: str) -> None:
    """As `start`, with spans handed to this processor."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  # only when on
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  # as above

    global _tracer, _provider  # noqa: PLW0603  # one per process, as with logs
    resource = {
        "service.name": settings.otel_service_name or f"gateway-{process}",
        "service.instance.id": new_id(),
        **settings.resource(),
    }
    _provider = TracerProvider(sampler=_sampler(settings), resource=Resource.create(resource), shutdown_on_exit=False)
    _provider.add_span_processor(processor)
    _tracer = _provider.get_tracer("syncaroo-gateway")


def stop() -> None:
    """Send what is left, for at most `FLUSH_SECONDS`, and trace no more."""
    global _tracer, _provider  # as above
    provider, _provider, _tracer = _provider, None, None
    if provider is not None:
        # In a thread that nobody need wait for: the library's own limit is 30 s.
        flushing = threading.Thread(target=provider.shutdown, daemon=True)
        flushing.start()
        flushing.join(FLUSH_SECONDS)


def is_on() -> bool:
    """Whether anything is traced: ask before making attributes where every microsecond counts."""
    return _tracer is not None


class Span:
    """Something that is under way."""

    def __init__(self, inner: trace.Span) -> None:
        self._inner = inner

    @property
    def traceparent(self) -> str | None:
        """Its context, for what it leads to elsewhere."""
        return _text_of(self._inner)

    @contextmanager
    def current(self) -> Iterator[None]:
        """What begins within is a part of it, and log lines say `trace_id`."""
        from opentelemetry.trace import use_span  # noqa: PLC0415  # only when on

        named = bound(trace_id=trace_id_of(self.traceparent))
        with use_span(self._inner, record_exception=False, set_status_on_exception=False), named:
            yield


def span(
    name: str,
    kind: Kind = "internal",
    attributes: Attributes | None = None,
    *,
    parent: str | None = None,
    links: Sequence[str] = (),
) -> AbstractContextManager[None]:
    """A span that is current within the block: a part of `parent`, else of what is current, else the first of a trace.

    An error that leaves the block is told by its kind and its reason alone.
    """
    return _NOTHING if _tracer is None else _current(begun(name, kind, attributes, parent=parent, links=links))


@contextmanager
def _current(beginning: AbstractContextManager[Span]) -> Iterator[None]:
    with beginning as one, one.current():
        yield


@contextmanager
def begun(
    name: str,
    kind: Kind = "internal",
    attributes: Attributes | None = None,
    *,
    parent: str | None = None,
    links: Sequence[str] = (),
) -> Iterator[Span]:
    """As `span`, but not current. Only while `is_on`."""
    from opentelemetry import trace  # noqa: PLC0415  # only when on

    assert _tracer is not None, "tracing is off"
    inner = _tracer.start_span(
        name,
        trace.set_span_in_context(trace.NonRecordingSpan(found)) if (found := _context(parent)) else None,
        trace.SpanKind[kind.upper()],
        {key: value for key, value in (attributes or {}).items() if value is not None},
        [trace.Link(context) for link in links if (context := _context(link))],
    )
    try:
        yield Span(inner)
    except BaseException as error:
        _fail(inner, error)
        raise
    finally:
        inner.end()


def current() -> str | None:
    """The `traceparent` of the current span; None when there is none, or tracing is off."""
    if _tracer is None:
        return None
    from opentelemetry.trace import get_current_span  # noqa: PLC0415  # only when on

    return _text_of(get_current_span())


def note(attributes: Attributes) -> None:
    """Add to the current span, if there is one."""
    if _tracer is None:
        return
    from opentelemetry.trace import get_current_span  # noqa: PLC0415  # only when on

    get_current_span().set_attributes({key: value for key, value in attributes.items() if value is not None})


def request(method: str, url: URL) -> Attributes:
    """What is told of a call: where it goes, without the query, in which a link may hold anything."""
    return {
        "http.request.method": method,
        "server.address": url.host,
        "server.port": url.port,
        "url.scheme": url.scheme,
        "url.path": url.raw_path,
    }


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace that a context belongs to; None for what is no `traceparent`."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return match[1] if match else None


def _text_of(inner: trace.Span) -> str | None:
    context = inner.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _context(traceparent: str | None) -> trace.SpanContext | None:
    """What a text names; None: it names nothing."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    if match is None:
        return None
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415  # only when on

    flags = TraceFlags(int(match[0][-2:], 16))
    context = SpanContext(int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=flags)
    return context if context.is_valid else None


def _fail(inner: trace.Span, error: BaseException) -> None:
    from opentelemetry.trace import StatusCode  # noqa: PLC0415  # only when on

    inner.set_attribute("error.type", type(error).__name__)
    inner.set_status(StatusCode.ERROR, error.reason if isinstance(error, Permanent) else type(error).__name__)


def _sampler(settings: TraceSettings) -> Sampler:
    from opentelemetry.sdk.trace import sampling  # noqa: PLC0415  # only when on

    inner: dict[str, Callable[[], Sampler]] = {
        "always_on": lambda: sampling.ALWAYS_ON,
        "always_off": lambda: sampling.ALWAYS_OFF,
        "traceidratio": lambda: sampling.TraceIdRatioBased(settings.otel_traces_sampler_arg),
    }
    root = inner[settings.otel_traces_sampler.removeprefix("parentbased_")]()
    return sampling.ParentBased(root) if settings.otel_traces_sampler.startswith("parentbased_") else root


class _OncePerKind(logging.Handler):
    """The library tells of every batch that is not sent; one line for each kind of trouble is enough."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told: set[tuple[str, str]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        kind = (record.name, str(record.msg))
        if kind not in self._told:
            self._told.add(kind)
            hint = "traces are lost meanwhile, nothing else; this kind of trouble is not told again"
            log.warning("tracing.trouble", reason=record.getMessage(), hint=hint)


def _tell_troubles_once() -> None:
    library = logging.getLogger("opentelemetry")
    library.propagate = False
    library.handlers = [_OncePerKind()]
