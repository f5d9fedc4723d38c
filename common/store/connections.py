"""Ending a user's connection: its tokens, its row and its event, in one transaction."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import update

from common.store.engine import Transaction
from common.store.events import append_events
from schemas.events import ConnectionChanged
from schemas.tables import CodeRow, ConnectionRow, FamilyRow, table_of

_code = table_of(CodeRow)
_connection = table_of(ConnectionRow)
_family = table_of(FamilyRow)


async def revoke_connection(transaction: Transaction, connection_id: int) -> bool:
    """Revoke it and everything issued for it, and say so once; False when it was revoked already or is not there."""
    now = await transaction.now()
    await _use_up_codes(transaction, connection_id, now)  # first, as a redemption locks its code before its connection
    revoked = await transaction.row(
        update(_connection)
        .where(_connection.c.connection_id == connection_id, _connection.c.state != "revoked")
        .values(state="revoked", revoked_at=now)
        .returning(_connection.c.user_id)
    )
    await _revoke_families(transaction, connection_id, now)
    if revoked is None:
        return False
    event = ConnectionChanged(connection_id=connection_id, user_id=revoked.user_id, state="revoked")
    await append_events(transaction, [event])
    return True


async def revoke_family(transaction: Transaction, family: str, now: datetime) -> None:
    """Refuse every token of one family from now on."""
    await transaction.execute(
        update(_family).where(_family.c.family == family, _family.c.revoked_at.is_(None)).values(revoked_at=now)
    )


async def _use_up_codes(transaction: Transaction, connection_id: int, now: datetime) -> None:
    """So that none of them is worth anything when the user consents again."""
    await transaction.execute(
        update(_code).where(_code.c.connection_id == connection_id, _code.c.used_at.is_(None)).values(used_at=now)
    )


async def _revoke_families(transaction: Transaction, connection_id: int, now: datetime) -> None:
    await transaction.execute(
        update(_family)
        .where(_family.c.connection_id == connection_id, _family.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
