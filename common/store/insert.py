"""`INSERT … ON CONFLICT` for either database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

from common.store.engine import Transaction


def insert(transaction: Transaction, table: Table) -> Any:
    """The database's own insert, with `on_conflict_do_nothing` and `on_conflict_do_update`; both spell them alike."""
    return postgresql.insert(table) if transaction.postgres else sqlite.insert(table)
