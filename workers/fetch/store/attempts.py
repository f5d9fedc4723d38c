"""Attempts: what became of each claim, kept for the history of the listings that it was about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import delete

from common.identity import place_of
from common.store.engine import Transaction
from schemas.tables import AttemptRow, table_of
from workers.fetch.claim import Claim

MAX_DETAIL = 200

_attempt = table_of(AttemptRow)


@dataclass(frozen=True)
class Ending:
    """How an attempt ended; `passing` when not the target's own failure, so that many alike may follow each other."""

    outcome: Literal["answered", "gone", "put_off", "parked", "gave_up"]
    status: int = 0
    pages: int = 0
    detail: str | None = None
    passing: bool = False


async def write_attempt(transaction: Transaction, claim: Claim, ending: Ending) -> None:
    """Add the attempt, in the transaction of its outcome. Of passing ones that say the same the latest is kept."""
    detail = ending.detail[:MAX_DETAIL] if ending.detail else None
    row = {
        "connection_id": claim.connection_id,
        "url": claim.url,
        "asked": claim.asked,
        "attempt": claim.attempts,
        "reason": "second_look" if claim.second_look else claim.reason,
        "outcome": ending.outcome,
        "detail": detail,
    }
    if ending.passing:
        await transaction.execute(delete(_attempt).where(*(_attempt.c[name] == value for name, value in row.items())))
    more = {
        "path": place_of(claim.url).path,
        "started": claim.started,
        "ended": await transaction.number(),
        "delivery_id": claim.delivery_id,
        "status": ending.status or None,
        "pages": ending.pages,
        "at": await transaction.now(),
    }
    await transaction.execute(_attempt.insert().values(**row, **more))
