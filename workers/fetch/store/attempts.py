"""Attempts: what became of each claim, kept for the history of the listings that it was about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import delete

from common.identity import place_of
from common.store.bulk import insert_rows
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


async def write_attempts(transaction: Transaction, ended: Sequence[tuple[Claim, Ending]]) -> None:
    """Add the attempts, in the transaction of their outcomes. Of passing ones that say the same the latest is kept."""
    if not ended:
        return
    for claim, ending in ended:
        if ending.passing:
            alike = _of_kind(claim, ending)
            await transaction.execute(delete(_attempt).where(*(_attempt.c[name] == alike[name] for name in alike)))
    now, numbers = await transaction.stamps(len(ended))
    rows = [_row(*one) | {"ended": number} for one, number in zip(ended, numbers, strict=True)]
    await insert_rows(transaction, _attempt, rows, {"at": now})


def _row(claim: Claim, ending: Ending) -> dict[str, Any]:
    return {
        **_of_kind(claim, ending),
        "path": place_of(claim.url).path,
        "started": claim.started,
        "delivery_id": claim.delivery_id,
        "status": ending.status or None,
        "pages": ending.pages,
    }


def _of_kind(claim: Claim, ending: Ending) -> dict[str, Any]:
    """What is alike in attempts that say the same."""
    return {
        "connection_id": claim.connection_id,
        "url": claim.url,
        "asked": claim.asked,
        "attempt": claim.attempts,
        "reason": "second_look" if claim.second_look else claim.reason,
        "outcome": ending.outcome,
        "detail": ending.detail[:MAX_DETAIL] if ending.detail else None,
    }
