"""What SECRET_KEYS are needed for, on both databases (T-KEYROT)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet

from common.codec import dumps
from common.crypto import TokenCipher
from common.errors import Permanent, SettingsError
from common.store.engine import Store
from common.store.keys import TOKEN_QUEUE, Inventory, check_keys, forget_pair, take_inventory
from common.store.parked import Parked, park
from ops.commands.keys import lines, report
from schemas.messages import CodeReceived
from schemas.tables import EventRow, FamilyRow, GrantRow, table_of

EMPTY = "once syncaroo.token and its delay queues are empty"
OLD, NEW, LOST = (Fernet.generate_key().decode() for _ in range(3))
_grant, _family, _event = table_of(GrantRow), table_of(FamilyRow), table_of(EventRow)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    made = Store(database_url)
    yield made
    await made.close()


def sealed(key: str) -> str:
    return TokenCipher([key]).seal(b"canary")


async def authorise(store: Store, key: str) -> None:
    row = {"account": "syncaroo", "state": "active", "sealed_pair": sealed(key), "rt_version": 3, "attempts": 0}
    async with store.transaction() as transaction:
        await transaction.execute(_grant.insert().values(row))


async def refresh_was_begun(store: Store) -> None:
    async with store.transaction() as transaction:
        lease = {"lease_owner": "a", "lease_until": await transaction.now(), "intent": "refresh", "attempts": 2}
        await transaction.execute(_grant.update().values(lease))


async def rows(store: Store, table: Any) -> list[Any]:
    async with store.reading() as transaction:
        return list(await transaction.rows(table.select()))


async def test_without_its_key_nobody_begins_and_nothing_is_touched(store: Store) -> None:
    await authorise(store, OLD)
    before = await rows(store, _grant)
    with pytest.raises(SettingsError, match="SECRET_KEYS: no key opens") as refused:
        await check_keys(store, TokenCipher([NEW, LOST]))
    assert not [key for key in (OLD, NEW, LOST) if key in str(refused.value)]
    assert await rows(store, _grant) == before
    await check_keys(store, TokenCipher([NEW, OLD]))


async def test_without_tokens_any_key_will_do(store: Store) -> None:
    await check_keys(store, TokenCipher([NEW]))
    assert not await forget_pair(store, TokenCipher([NEW]))


async def test_a_lost_key_is_lived_down_by_authorising_again(store: Store) -> None:
    await authorise(store, LOST)
    await refresh_was_begun(store)
    assert await forget_pair(store, TokenCipher([NEW]))
    await check_keys(store, TokenCipher([NEW]))
    [row] = await rows(store, _grant)
    assert (row.state, row.sealed_pair, row.rt_version) == ("needs_authorisation", None, 3)
    assert (row.lease_owner, row.lease_until, row.intent, row.attempts) == (None, None, None, 0)
    assert [event.type for event in await rows(store, _event)] == ["grant.changed"]
    assert not await forget_pair(store, TokenCipher([NEW])), "said once"


async def test_what_a_key_opens_is_not_given_up(store: Store) -> None:
    await authorise(store, OLD)
    before = await rows(store, _grant)
    with pytest.raises(Permanent, match="still_readable: a key of SECRET_KEYS opens"):
        await forget_pair(store, TokenCipher([NEW, OLD]))
    assert (await rows(store, _grant), await rows(store, _event)) == (before, [])


async def test_the_inventory_knows_all_that_needs_a_key(store: Store) -> None:
    await authorise(store, NEW)
    message = CodeReceived(attempt_id="a", sealed_code=sealed(OLD))
    async with store.transaction() as transaction:
        now = await transaction.now()
        await park(transaction, [Parked(TOKEN_QUEUE, "unknown_attempt", None, "token.0", "CodeReceived", body, 1)
                                 for body in (dumps(message), b"{", b"[]", b"{}")])  # fmt: skip
        for number, (age, revoked, left) in enumerate([(9, None, 1), (3, None, 1), (99, now, 1), (99, None, -1)]):
            row = {"family": str(number), "connection_id": 99, "generation": 1, "revoked_at": revoked}
            times = {"rotated_at": now - timedelta(days=age), "expires_at": now + timedelta(days=left)}
            await transaction.execute(_family.insert().values(row | times))
    found = await take_inventory(store)
    assert report([NEW, OLD], found) == {
        "keys": 2,
        "grant": 1,
        "parked": {"2": 1},
        "unreadable": 0,
        "issued": 2,
        "issuedSince": (now - timedelta(days=9)).isoformat(timespec="seconds"),
        "lastIsNeeded": True,
    }


@pytest.mark.parametrize(
    ("keys", "grant", "issued", "end"),
    [
        ([NEW, OLD], sealed(OLD), 0, "key 2 has to stay"),
        ([NEW, OLD], sealed(NEW), 0, f"key 2 may go {EMPTY}"),
        ([NEW, OLD], None, 0, f"key 2 may go {EMPTY}"),
        ([NEW], sealed(NEW), 0, "key 1 has to stay"),
        (
            [NEW, OLD],
            sealed(NEW),
            7,
            f"(then the least recent of 7 refresh tokens that we issued was signed), and {EMPTY}",
        ),
    ],
    ids=["used", "unused", "nothing sealed", "alone", "tokens issued"],
)
def test_the_verdict_on_the_last_key(keys: list[str], grant: str | None, issued: int, end: str) -> None:
    told = lines(report(keys, Inventory(grant, [], issued, None)))
    assert told[-1].endswith(end)
    assert not [key for key in keys if key in "".join(told)]


def test_what_no_key_opens_is_counted() -> None:
    found = report([NEW], Inventory(sealed(LOST), [sealed(LOST), sealed(NEW)], 0, None))
    assert (found["grant"], found["parked"], found["unreadable"]) == ("unreadable", {"1": 1}, 2)
    assert "no key opens 2 of these" in lines(found)
