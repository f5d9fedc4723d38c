"""A message's frames, held against the library that encodes AMQP for everybody else."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from common.broker.frames import frames_of
from common.broker.outgoing import Outgoing

MOST = 131_072 - 8
SHORT = st.text(max_size=60)
VALUES = (  # moments from 2106 on the library reads as milliseconds
    SHORT
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.none()
    | st.integers(0, 2**32 - 1).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
    | st.lists(st.integers(0, 9), max_size=3)
)


def read(data: bytes) -> list[Any]:
    """The frames, decoded by the library; all are of channel 7."""
    frames = []
    while data:
        used, channel, one = frame.unmarshal(data)
        assert channel == 7
        frames.append(one)
        data = data[used:]
    return frames


@given(
    st.builds(
        Outgoing,
        routing_key=SHORT,
        body=st.binary(max_size=300),
        exchange=st.sampled_from(("syncaroo.work", "")),
        headers=st.dictionaries(st.text(min_size=1, max_size=40), VALUES, max_size=4),
        correlation_id=st.none() | SHORT,
        timestamp=st.none() | st.just(datetime(2026, 11, 29, tzinfo=UTC)),
        type=st.none() | SHORT,
    )
)
def test_the_library_reads_what_was_meant(message: Outgoing) -> None:
    publish, header, *bodies = read(frames_of(message, "17", 7, MOST))
    assert isinstance(publish, commands.Basic.Publish)
    assert (publish.exchange, publish.routing_key, publish.mandatory) == (message.exchange, message.routing_key, True)
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(message.body)
    properties = header.properties
    assert (properties.message_id, properties.delivery_mode) == ("17", 2)
    assert (properties.content_type, properties.message_type) == (message.content_type, message.type)
    assert (properties.correlation_id, properties.timestamp) == (message.correlation_id, message.timestamp)
    assert (properties.headers or {}) == message.headers
    assert b"".join(one.value for one in bodies) == message.body


def test_what_may_get_lost_is_neither_kept_nor_sent_back() -> None:
    publish, header = read(frames_of(Outgoing("key", b""), "1", 7, MOST, certain=False))
    assert (publish.mandatory, header.properties.delivery_mode) == (False, 1)


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
def test_a_body_is_cut_into_frames(size: int) -> None:
    _, header, *bodies = read(frames_of(Outgoing("key", b"x" * size), "1", 7, 100))
    assert header.body_size == size
    assert all(isinstance(one, ContentBody) and 0 < len(one.value) <= 100 for one in bodies)
    assert sum(len(one.value) for one in bodies) == size


@pytest.mark.parametrize("value", [1.5, Decimal("1.5"), bytearray(b"bytes"), {"in": {"it": 1}}, True])
def test_odd_values_are_read_as_they_were(value: Any) -> None:
    """What strangers have put into a header is copied with their message."""
    _, header = read(frames_of(Outgoing("key", b"", headers={"odd": value}), "1", 7, MOST))
    assert header.properties.headers == {"odd": value}


@pytest.mark.parametrize("message", [Outgoing("k", b"", type="t" * 256), Outgoing("k", b"", headers={"n" * 256: "v"})])
def test_what_does_not_fit_is_refused(message: Outgoing) -> None:
    with pytest.raises(ValueError, match="255 bytes"):
        frames_of(message, "1", 7, MOST)
