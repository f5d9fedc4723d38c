"""The end of our access to Syncaroo, whoever finds that there is none."""

from __future__ import annotations

from sqlalchemy import update

from common.store.engine import Transaction
from common.store.events import append_events
from schemas.events import GrantChanged
from schemas.tables import SYNCAROO_ACCOUNT, GrantRow, table_of

_grant = table_of(GrantRow)


async def lose_grant(transaction: Transaction, detail: str) -> None:
    """An admin has to authorise again, and nobody is at it any more. Told by one event."""
    lost = {
        "state": "needs_authorisation",
        "lease_owner": None,
        "lease_until": None,
        "intent": None,
        "attempts": 0,
        "last_error": detail,
    }
    await transaction.execute(update(_grant).where(_grant.c.account == SYNCAROO_ACCOUNT).values(lost))
    await append_events(transaction, [GrantChanged(state="needs_authorisation")])
