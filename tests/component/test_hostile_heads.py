"""T-ING-SMUGGLE: heads and chunks as hypothesis puts them together, on raw sockets, for the application on a port."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from common import listen
from ingress import limits
from tests.component.served import Served, hang_up
from tests.hostile import CHUNKED, LAST, Webhooks, statuses_of
from tests.ingress_app import CONNECTION, KEY
from tests.waiting import within

WEBHOOKS = Webhooks.of(CONNECTION, KEY)
GOOD = WEBHOOKS.request()
LENGTH = b"%d" % len(WEBHOOKS.body)

END = st.sampled_from([b"\r\n"] * 60 + [b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\0\r\n", b""])
METHOD = st.sampled_from([b"POST"] * 30 + [b"GET", b"HEAD", b"OPTIONS", b"CONNECT", b"post", b"PRI", b"P\0ST"])
TARGET = st.sampled_from(
    [b"/update"] * 20 + [b"/api//update/", b"*", b"http://x/update", b"/%2e%2e/x", b"/\xff", b"x:1"]
)
VERSION = st.sampled_from([b"HTTP/1.1"] * 40 + [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9", b"", b"http/1.1"])
NAME = st.sampled_from(
    [b"Authorization", b"Content-Type", b"Content-Encoding", b"Expect", b"Connection", b"Upgrade"]
) | (
    st.sampled_from([b"Content-Length", b"Transfer-Encoding", b"Host", b"Trailer", b"Cookie", b"X-Forwarded-For"])
    | st.binary(max_size=6)
)
VALUE = st.sampled_from([b"x", LENGTH, b"0", b"5", b"chunked", b"gzip, chunked", b"identity", b"close", b"upgrade"]) | (
    st.sampled_from([b"h2c", b"100-continue", WEBHOOKS.authorization, b"Bearer x", b"a/b; charset=\xff", b"[::", b""])
    | st.binary(max_size=12)
)
COLON = st.sampled_from([b": "] * 40 + [b":", b" : ", b":\t", b":\x0b", b""])
HEADER = st.tuples(NAME, COLON, VALUE, END).map(b"".join)
TRUE = [b"Host: x\r\n", b"Authorization: %s\r\n" % WEBHOOKS.authorization]
CHUNK = st.tuples(
    st.sampled_from(
        [b"%x" % len(WEBHOOKS.body)] * 4 + [b"0", b"5", b"-1", b"0x5", b"fffffffffffffffff", b"", b"5;a=b"]
    ),
    END,
    st.sampled_from([WEBHOOKS.body, b"abcde", b"", GOOD]),
    END,
).map(b"".join)
BODY = st.sampled_from([WEBHOOKS.body] * 4 + [b"", b"{}", GOOD])
FRAMED = (
    BODY.map(lambda body: (b"Content-Length: %d\r\n" % len(body), body))
    | BODY.map(lambda body: (CHUNKED, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)))
    | st.tuples(HEADER, BODY | st.lists(CHUNK, max_size=3).map(b"".join))
)
"""What tells how long a body is, and the body: two that are right, and one that may be anything."""


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that may or may not be one."""
    line = draw(METHOD) + b" " + draw(TARGET) + b" " + draw(VERSION) + draw(END)
    told, body = draw(FRAMED)
    heads = [*TRUE, told, *draw(st.lists(HEADER, max_size=2))]
    return line + b"".join(draw(st.permutations(heads))) + draw(END) + body


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.1)
    for name in ("SILENT_SECONDS", "KEEPALIVE_SECONDS", "SWEEP_SECONDS"):
        monkeypatch.setattr(listen, name, 0.1)
    stop = asyncio.Event()
    async with Served() as made:
        sweeping = asyncio.create_task(made.listener.close_silent(stop))
        yield made
        stop.set()
        await sweeping


@given(sent=st.lists(requests(), min_size=1, max_size=3).map(b"".join))
@hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_is_sent_is_no_500_and_what_is_published_was_answered(served: Served, sent: bytes) -> None:
    """An answer for each webhook that was taken: none is read out of what another request was."""
    served.broker.published.clear()
    with capture_logs() as logs:
        got = await answers(served.port, sent + LAST)
    assert [one for one in logs if one["event"] == "request.failed"] == []
    assert [status for status in statuses_of(got) if status >= 500] == []
    assert len(served.broker.published) == got.count(b'"status":"accepted"'), got


async def answers(port: int, sent: bytes) -> bytes:
    """All that comes back until the server ends the connection, as it does when nothing more comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    got = b""
    async with within(30):
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65_536):
                got += piece
    await hang_up(writer)
    return got
