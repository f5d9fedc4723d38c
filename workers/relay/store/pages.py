"""Pages that are bounded in rows and in bytes, on both databases: first the sizes are read, then what fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, func

from common.store.engine import Transaction

PAGE_ROWS = 200
PAGE_BYTES = 8 * 1024 * 1024


def size_of(transaction: Transaction, column: ColumnElement[Any]) -> ColumnElement[int]:
    """Bytes of a text; on SQLite, which cannot always say, its characters."""
    size = func.octet_length if transaction.postgres else func.length
    return func.coalesce(size(column), 0)


def fitting(sizes: Sequence[int], most: int) -> int:
    """How many of them, from the first on, are together no more than `most`; the first one always is. Pure."""
    total = 0
    for number, size in enumerate(sizes):
        total += size
        if total > most and number:
            return number
    return len(sizes)
