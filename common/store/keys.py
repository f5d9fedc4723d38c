"""What in the store is sealed with `SECRET_KEYS`, and what to do when no key opens it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select, update

from common.codec import loads
from common.crypto import TokenCipher
from common.errors import BadJson, Permanent, SettingsError
from common.store.engine import Store, Transaction
from common.store.grant import lose_grant
from schemas.tables import SYNCAROO_ACCOUNT, FamilyRow, GrantRow, ParkedRow, table_of

MISSING = (
    "SECRET_KEYS: no key opens Syncaroo's stored tokens; put the key back that sealed them "
    "(if it is lost for good: `gateway keys forget`, then authorise again at /connect)"
)
TOKEN_QUEUE = "syncaroo.token"  # noqa: S105  # a queue's name

_grant = table_of(GrantRow)
_parked = table_of(ParkedRow)
_family = table_of(FamilyRow)


@dataclass(frozen=True)
class Inventory:
    """All that the keys are needed for: Syncaroo's tokens and parked messages as they are sealed, and how many live
    tokens we have issued, the least recent of them when."""

    grant: str | None = field(repr=False)
    parked: list[str] = field(repr=False)
    issued: int
    issued_since: datetime | None


async def take_inventory(store: Store) -> Inventory:
    """As it is now. Raises StoreUnavailable."""
    async with store.reading() as transaction:
        now = await transaction.now()
        live = (_family.c.revoked_at.is_(None), _family.c.expires_at > now)
        issued = await transaction.row(select(func.count().label("number")).select_from(_family).where(*live))
        oldest = await transaction.row(select(_family.c.rotated_at).where(*live).order_by(_family.c.rotated_at))
        bodies = await transaction.rows(select(_parked.c.body).where(_parked.c.queue == TOKEN_QUEUE))
        parked = [sealed for row in bodies if (sealed := _sealed_in(bytes(row.body))) is not None]
        grant = await _sealed_pair(transaction)
    return Inventory(grant, parked, 0 if issued is None else issued.number, None if oldest is None else oldest[0])


async def check_keys(store: Store, cipher: TokenCipher) -> None:
    """Nothing is written: with the key back all goes on.

    Raises:
        SettingsError: no key opens the tokens that are in use.
        StoreUnavailable: they cannot be read.
    """
    async with store.reading() as transaction:
        sealed = await _sealed_pair(transaction)
    if sealed is not None and not _opens(cipher, sealed):
        raise SettingsError([MISSING])


async def forget_pair(store: Store, cipher: TokenCipher) -> bool:
    """Give up Syncaroo's tokens, as if it had refused them; False when there are none.

    Raises:
        Permanent: `still_readable`, a key opens them; nothing is given up.
        StoreUnavailable: nothing is known.
    """
    async with store.transaction() as transaction:
        sealed = await _sealed_pair(transaction, lock=True)
        if sealed is None:
            return False
        if _opens(cipher, sealed):
            raise Permanent("still_readable", "a key of SECRET_KEYS opens Syncaroo's tokens, so nothing is given up")
        await lose_grant(transaction, "given up: no key opened it")
        await transaction.execute(update(_grant).where(_grant.c.account == SYNCAROO_ACCOUNT).values(sealed_pair=None))
    return True


async def _sealed_pair(transaction: Transaction, *, lock: bool = False) -> str | None:
    query = select(_grant.c.sealed_pair).where(_grant.c.account == SYNCAROO_ACCOUNT, _grant.c.state == "active")
    row = await transaction.row(query.with_for_update() if lock else query)
    return None if row is None else row.sealed_pair


def _opens(cipher: TokenCipher, sealed: str) -> bool:
    try:
        cipher.open(sealed)
    except Permanent:
        return False
    return True


def _sealed_in(body: bytes) -> str | None:
    """The sealed member of a message to the token worker."""
    try:
        message = loads(body)
    except BadJson:
        return None
    members = message if isinstance(message, dict) else {}
    sealed = members.get("sealedCode") or members.get("sealedPair")
    return sealed if isinstance(sealed, str) else None
