"""A message as the frames of AMQP 0-9-1 that publish it, encoded in one go.

Only what `Outgoing` can hold is written here; values in headers other than text and whole numbers are the library's.
https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, 2.3.5 and 4.2.6.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pamqp import commands, encode, frame

from common.broker.outgoing import Outgoing

HEADER, BODY = 2, 3
END = b"\xce"
PERSISTENT, TRANSIENT = b"\x02", b"\x01"
CONTENT_TYPE, HEADERS, DELIVERY_MODE = 1 << 15, 1 << 13, 1 << 12
CORRELATION_ID, MESSAGE_ID, TIMESTAMP, TYPE = 1 << 10, 1 << 7, 1 << 6, 1 << 5
ALWAYS = CONTENT_TYPE | HEADERS | DELIVERY_MODE | MESSAGE_ID
LONGEST_SHORT = 255

_frame = struct.Struct(">BHI")
_content = struct.Struct(">HHQH")
_long = struct.Struct(">cI")
_number = struct.Struct(">cq")
_table = struct.Struct(">I")
_moment = struct.Struct(">Q")


def frames_of(message: Outgoing, message_id: str, channel: int, most: int, *, certain: bool = True) -> bytes:
    """The frames that publish it, mandatory and persistent if it is to be `certain`; a body is cut after `most` bytes.

    Raises:
        ValueError, TypeError: a property, or a header's name, is longer than 255 bytes, or a value is of no AMQP type.
    """
    body = message.body
    frames = [_method(channel, message.exchange, message.routing_key, certain)]
    frames += _framed(HEADER, channel, _header(message, message_id, PERSISTENT if certain else TRANSIENT))
    if len(body) <= most:
        if body:
            frames += _framed(BODY, channel, body)
    else:
        for at in range(0, len(body), most):
            frames += _framed(BODY, channel, body[at : at + most])
    return b"".join(frames)


@lru_cache(maxsize=1024)
def _method(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    publish = commands.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    return frame.marshal(publish, channel)


def _framed(kind: int, channel: int, payload: bytes) -> tuple[bytes, bytes, bytes]:
    return _frame.pack(kind, channel, len(payload)), payload, END


def _header(message: Outgoing, message_id: str, mode: bytes) -> bytes:
    flags, table = ALWAYS, _entries(message.headers)
    after = [_short(message_id)]
    if message.timestamp is not None:
        flags |= TIMESTAMP
        after.append(_moment.pack(int(message.timestamp.timestamp())))
    if message.type is not None:
        flags |= TYPE
        after.append(_word(message.type))
    if message.correlation_id is not None:
        flags |= CORRELATION_ID
        after.insert(0, _short(message.correlation_id))
    return b"".join(
        (
            _content.pack(commands.Basic.frame_id, 0, len(message.body), flags),
            *(_word(message.content_type), _table.pack(len(table)), table, mode),
            *after,
        )
    )


def _entries(headers: Mapping[str, Any]) -> bytes:
    entries = []
    for name, value in headers.items():
        entries.append(_word(name))
        if type(value) is str:
            data = value.encode()
            entries += (_long.pack(b"S", len(data)), data)
        elif type(value) is int and -(2**63) <= value < 2**63:
            entries.append(_number.pack(b"l", value))
        else:
            entries.append(encode.encode_table_value(value))
    return b"".join(entries)


def _short(text: str) -> bytes:
    data = text.encode()
    if len(data) > LONGEST_SHORT:
        raise ValueError("AMQP: properties and names of headers have 255 bytes at most")
    return b"%c%b" % (len(data), data)


_word = lru_cache(maxsize=256)(_short)
"""For what is said again and again."""
