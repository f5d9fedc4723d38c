"""What is parked, for a person to look at and decide."""

from __future__ import annotations

from common.store.engine import Store
from common.store.parked import Parked, drop_parked, get_parked, list_parked
from ingress.admin.rules import Paging


class DeadLetterStore:
    """Parked messages; every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(
        self, queue: str | None, connection_id: int | None, reason: str | None, paging: Paging
    ) -> list[Parked]:
        """What is parked, in the order of parking."""
        after = "" if paging.after is None else str(paging.after[0])
        async with self._store.reading() as transaction:
            return await list_parked(
                transaction,
                queue=queue,
                connection_id=connection_id,
                reason=reason,
                after=after,
                limit=paging.limit,
            )

    async def get(self, parked_id: str) -> Parked | None:
        """One of them."""
        async with self._store.reading() as transaction:
            return await get_parked(transaction, parked_id)

    async def drop(self, parked_id: str) -> bool:
        """Forget one; False: there is none."""
        async with self._store.transaction() as transaction:
            return await drop_parked(transaction, parked_id)
