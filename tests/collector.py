"""A stand-in for a collector of traces: takes OTLP over HTTP as it is specified, and keeps what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.waiting import until


@dataclass(frozen=True)
class Told:
    """One span; ids are hex, an empty `parent_id` is that of the first of a trace."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    links: tuple[str, ...]
    """Trace ids."""
    failed: bool


@dataclass
class Collector:
    """`raw` are the requests' bodies, `headers` what came with them; `hangs`: nobody is answered."""

    url: str = ""
    spans: list[Told] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    hangs: bool = False
    requests: int = 0

    @property
    def settings(self) -> dict[str, str]:
        """For processes that shall tell it, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}

    def of(self, trace_id: str) -> list[Told]:
        """The spans of a trace."""
        return [span for span in self.spans if span.trace_id == trace_id]

    async def trace(self, name: str, seconds: float = 30.0, **attributes: Any) -> list[Told]:
        """The trace in which a span of that name with these attributes (`_` for `.`) has come to its end."""

        def there() -> list[Told]:
            wanted = {key.replace("__", "."): value for key, value in attributes.items()}
            for span in self.spans:
                if span.name == name and wanted.items() <= span.attributes.items():
                    return self.of(span.trace_id)
            return []

        return await until(there, seconds, what=f"{name} of {attributes}")

    async def receive(self, request: web.Request) -> web.Response:
        """`POST /v1/traces`."""
        self.requests += 1
        if self.hangs:
            await asyncio.Event().wait()
        assert request.content_type == "application/x-protobuf", request.content_type
        body = await request.read()
        self.raw.append(body)
        self.headers.append(dict(request.headers))
        self.spans += _spans(ExportTraceServiceRequest.FromString(body))
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )


@asynccontextmanager
async def collector(*, hangs: bool = False) -> AsyncIterator[Collector]:
    """One that listens until the end of the block."""
    found = Collector(hangs=hangs)
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/traces", found.receive)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.1)
    found.url = str(server.make_url("")).rstrip("/")
    try:
        yield found
    finally:
        await server.close()


def _spans(request: ExportTraceServiceRequest) -> list[Told]:
    return [
        Told(
            service=str(_attributes(part.resource.attributes)["service.name"]),
            name=span.name,
            kind=span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            attributes=_attributes(span.attributes),
            links=tuple(link.trace_id.hex() for link in span.links),
            failed=span.status.code == 2,
        )
        for part in request.resource_spans
        for scope in part.scope_spans
        for span in scope.spans
    ]


def _attributes(found: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in found}
