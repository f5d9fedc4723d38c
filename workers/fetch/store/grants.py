"""The grant as fetch sees it: a token that is valid now, and one that Syncaroo refused."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import and_, or_, select, update

from common.store.engine import Store, Transaction
from schemas.tables import SYNCAROO_ACCOUNT, GrantRow, table_of
from workers.fetch.claim import Grant

EXPIRY_MARGIN = timedelta(seconds=5)
RENEW_AGAIN = timedelta(seconds=10)
"""So often at most a refused token is renewed: an API that refuses every token must not use up one after another."""

_grant = table_of(GrantRow)


class GrantStore:
    """Waiting for a newer pair, and refusing one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def newer_grant(self, rt_version: int) -> Grant | None:
        """A valid pair that came after the given version."""
        async with self._store.reading() as transaction:
            grant = await valid_grant(transaction, await transaction.now())
        return grant if grant is not None and grant.rt_version > rt_version else None

    async def reject_token(self, rt_version: int) -> bool:
        """Syncaroo refused the token of this version: nobody uses it any more, and it is to be renewed at once.

        False when another one was refused a moment ago, so that this one is what came of that. True when it has been
        refused before, or has a successor.
        """
        async with self._store.transaction() as transaction:
            now = await transaction.now()
            current = and_(_grant.c.account == SYNCAROO_ACCOUNT, _grant.c.rt_version == rt_version)
            settled = or_(
                _grant.c.refused_at.is_(None), _grant.c.refused_at < now - RENEW_AGAIN, _grant.c.refused_at > now
            )
            in_use = and_(_grant.c.state == "active", _grant.c.expires_at > now)
            await transaction.execute(
                update(_grant).where(current, in_use, settled).values(expires_at=now, refresh_at=now, refused_at=now)
            )
            return await transaction.row(select(_grant.c.account).where(current, in_use)) is None


async def valid_grant(transaction: Transaction, now: datetime) -> Grant | None:
    """The pair, if it stays valid for the time of a call."""
    row = await transaction.row(
        select(_grant.c.rt_version, _grant.c.sealed_pair)
        .where(_grant.c.account == SYNCAROO_ACCOUNT, _grant.c.state == "active")
        .where(_grant.c.expires_at > now + EXPIRY_MARGIN)
    )
    return None if row is None or row.sealed_pair is None else Grant(row.rt_version, row.sealed_pair)
