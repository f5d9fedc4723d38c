"""The one maker of ids: time-ordered UUIDs (RFC 9562, version 7)."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime, timedelta


def new_id() -> str:
    """A fresh UUIDv7: 48 bits of Unix milliseconds, then 74 random bits. Unique, sortable by time, not secret."""
    millis = time.time_ns() // 1_000_000
    value = (millis & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def made_at(made: str) -> datetime | None:
    """When an id of ours was made, by the clock of whoever made it: for people, not to compare. None: not ours."""
    try:
        value = uuid.UUID(made)
    except ValueError:
        return None
    if value.version != 7:
        return None
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=value.int >> 80)
