"""Erasing a person on both databases: nothing of them is left anywhere, and nothing comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import BigInteger, Boolean, DateTime, Float, Integer, LargeBinary, Table, select, text, update

from common.brake import NO_BRAKE
from common.ids import new_id
from common.store.engine import Store
from common.store.erasing import OF_A_CONNECTION, OF_A_USER, ErasureStore
from common.store.parked import Parked, park
from common.store.targets import Wanted, want
from schemas.messages import ListingUnmapped, PlatformIds, ResyncWanted, SnapshotRequested, WebhookReceived
from schemas.tables import (
    NOBODY,
    ConnectionRow,
    ErasureRow,
    EventRow,
    FeedRow,
    SQLModel,
    TargetRow,
    UserRow,
    UtcDateTime,
    table_of,
)
from tests.answers import ROOM, ROOMS, page
from tests.component.conftest import lock_waiters
from tests.component.gateway_parts import LOCATIONS, Gateway, authorize, running
from tests.component.target_parts import authorise, process
from tests.component.test_reconcile_store import deliver
from tests.fixtures.database import ON_POSTGRESQL
from tests.waiting import until, within
from workers.fetch.store.suspects import SuspectStore
from workers.relay import erasing as timing
from workers.relay.erasing import Erasing
from workers.relay.store.past import PastStore
from workers.relay.store.past import Wanted as WantedEvents
from workers.relay.store.snapshots import SnapshotStore

PERSON = "person-ada-7f3c"
"""In every text that is kept of her."""
OTHER = "person-bob-91e0"
AT = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
SINCE_EVER = WantedEvents(datetime(1970, 1, 1, tzinfo=UTC))
ROWS = 5

_connection, _event, _erasure = table_of(ConnectionRow), table_of(EventRow), table_of(ErasureRow)


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Gateway]:
    async with running(database_url) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(timing, "BETWEEN_SECONDS", 0)


def filled(table: Table, connection_id: int, number: int, person: str) -> dict[str, Any]:
    """A row that tells of the person wherever it can."""
    told = f"{person} of {connection_id}, {number}"
    row = {column.name: _value(column.type, number, told) for column in table.columns}
    if table is _event:
        row |= {"type": "listing.changed", "headers": f'{{"locationId":"{person}"}}', "data": f'{{"x":"{person}"}}'}
    return row | {"connection_id": connection_id}


def _value(kind: Any, number: int, told: str) -> Any:
    if isinstance(kind, Boolean):
        return False
    if isinstance(kind, Integer | BigInteger | Float):
        return number
    if isinstance(kind, UtcDateTime | DateTime):
        return AT
    if isinstance(kind, LargeBinary):
        return told.encode()
    return f'"{told}"'


async def fill(store: Store, connection_id: int, person: str, rows: int = ROWS) -> None:
    """As if the gateway had kept everything it can of this connection."""
    async with store.transaction() as transaction:
        for table in OF_A_CONNECTION:
            alone = [column.name for column in table.primary_key.columns] == ["connection_id"]
            numbers = range(1 if alone else rows)
            await transaction.execute(table.insert(), [filled(table, connection_id, one, person) for one in numbers])


async def own(store: Store, connection_id: int = 99, person: str = PERSON) -> None:
    """A confirmed connection of a user, without the ceremony."""
    async with store.transaction() as transaction:
        user = {"user_id": person, "login": f"{person}@example.com", "created_at": AT}
        await transaction.execute(table_of(UserRow).insert().values(user))
        connection = {"connection_id": connection_id, "user_id": person, "state": "confirmed", "created_at": AT}
        await transaction.execute(_connection.insert().values(connection))


async def places(store: Store, needle: str) -> set[str]:
    """Tables and columns in which the text is, whatever their type."""
    found = set()
    async with store.reading() as transaction:
        for table in SQLModel.metadata.sorted_tables:
            for row in await transaction.rows(table.select()):
                told = {name: str(value) for name, value in row._mapping.items()}
                found |= {f"{table.name}.{name}" for name, value in told.items() if needle in value}
    return found


async def left_of(store: Store, connection_id: int) -> set[str]:
    """Tables in which there is a row of the connection."""
    async with store.reading() as transaction:
        return {
            table.name
            for table in OF_A_CONNECTION
            if await transaction.row(table.select().where(table.c.connection_id == connection_id).limit(1))
        }


async def publish(store: Store) -> None:
    """As the relay does."""
    async with store.transaction() as transaction:
        await transaction.execute(update(_event).values(published_at=AT))


async def erase_rest(store: Store) -> None:
    await Erasing(ErasureStore(store)).erase(asyncio.Event())


def test_every_table_is_judged() -> None:
    """T-ERASE: whoever adds a table that knows of a user or a connection decides here what erasing does to it."""
    kept = {
        "connection": "the number stays, revoked and nobody's",
        "family": "which tokens are refused; nothing in it tells of a person",
        "erasure": "what is still to be erased",
    }
    personal = {
        table.name
        for table in SQLModel.metadata.sorted_tables
        if {"user_id", "login", "connection_id"} & set(table.columns.keys())
    }
    assert personal - set(kept) == {table.name for table in (*OF_A_USER, *OF_A_CONNECTION)}


async def test_nothing_of_an_erased_person_is_in_any_table(gateway: Gateway) -> None:
    """T-ERASE: the account, the listings of both sides, history, parked messages; others keep everything."""
    store = gateway.store
    await gateway.add_user(PERSON, f"{PERSON}@example.com", locations=LOCATIONS)
    await gateway.add_user(OTHER, "bob", locations=LOCATIONS)
    await gateway.connect(99, f"{PERSON}@example.com")
    pair = await gateway.connect(98, f"{PERSON}@example.com")
    assert (await gateway.check(pair["accessToken"], 98)).status == 200
    await gateway.connect(7, "bob")
    for connection_id, person in ((98, PERSON), (99, PERSON), (7, OTHER)):
        await fill(store, connection_id, person)
    others = await places(store, OTHER)
    assert len(others) > 40
    assert {place.replace("login", "user_id") for place in await places(store, PERSON)} >= others

    assert (await gateway.admin("DELETE", f"users/{PERSON}"))[0] == 204

    assert await places(store, PERSON) == {"event.data"}, "subscribers are still to be told that it ended"
    await publish(store)
    await erase_rest(store)
    assert await places(store, PERSON) == set()
    assert (await left_of(store, 98), await left_of(store, 99)) == (set(), set())
    assert await places(store, OTHER) == others
    assert await gateway.rows(ErasureRow) == []
    if not store.postgres:
        assert await file_holds(store, OTHER)
        assert not await file_holds(store, PERSON), "in the file's free pages"
    assert (await gateway.admin("DELETE", f"users/{PERSON}"))[0] == 404


async def file_holds(store: Store, needle: str) -> bool:
    async with store.transaction() as transaction:
        await transaction.execute(text("SELECT 1"))
    connection = await store.session()
    await connection.execute(text("COMMIT"))
    await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    await connection.close()
    return needle.encode() in await asyncio.to_thread(_content, str(store.url.database))


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


async def test_its_end_is_told_before_it_is_forgotten_whose_it_was(store: Store) -> None:
    """T-ERASE: whatever else of it was not published yet is not published any more."""
    await own(store)
    await fill(store, 99, PERSON)
    async with store.transaction() as transaction:
        await transaction.execute(update(_event).values(published_at=None))
    erasures = ErasureStore(store)
    assert await erasures.erase(PERSON) == [99]
    await erase_rest(store)
    await erase_rest(store)
    async with store.reading() as transaction:
        (event,) = await transaction.rows(_event.select())
    assert event.type == "connection.changed"
    assert f'"userId":"{PERSON}","state":"revoked"' in event.data
    assert await erasures.waiting() == [99]
    await publish(store)
    await erase_rest(store)
    assert (await left_of(store, 99), await erasures.waiting()) == (set(), [])


async def test_what_broke_off_in_the_middle_goes_on_and_is_in_no_snapshot_meanwhile(store: Store) -> None:
    """T-ERASE: the process that began it is gone after any of its batches."""
    await own(store)
    await own(store, 7, OTHER)
    for connection_id, person in ((99, PERSON), (7, OTHER)):
        await fill(store, connection_id, person)
    batches = 0
    assert await ErasureStore(store).erase(PERSON) == [99]
    while await ErasureStore(store, batch=2).erase_some(99):
        batches += 1
        assert await everybody_is_told_of(store) == {7}
        if batches == 4:
            break
    assert {"target", "attempt"} & await left_of(store, 99), "in the middle"
    await publish(store)
    stop = asyncio.Event()
    running = asyncio.create_task(Erasing(ErasureStore(store, batch=2)).run(stop))

    async def done() -> bool:
        return await ErasureStore(store).waiting() == []

    await until(done, 60)
    stop.set()
    await running
    assert await places(store, PERSON) == set()
    assert await everybody_is_told_of(store) == {7}


async def everybody_is_told_of(store: Store) -> set[int]:
    """Connections that a snapshot or a replay would hold."""
    page = await SnapshotStore(store).page(SnapshotRequested(to="q"))
    assert len(page.listings) == await SnapshotStore(store).count(SnapshotRequested(to="q"))
    past = PastStore(store)
    found = await past.find(SINCE_EVER, 100)
    told = await past.page(SINCE_EVER, -1, 10**6)
    assert len(told) == found.events
    return {one.connection_id for one in page.listings} | {one.event.connection_id for one in told}


async def test_two_at_once_erase_everything_once(store: Store, other: Store) -> None:
    await own(store)
    await fill(store, 99, PERSON, rows=40)
    erased = await asyncio.gather(*(ErasureStore(one).erase(PERSON) for one in (store, other)))
    assert sorted(erased, key=str) == [None, [99]] or erased == [[99], None]
    await publish(store)
    both = [Erasing(ErasureStore(one, batch=3)) for one in (store, other)]

    async def done() -> bool:
        await asyncio.gather(*(one.erase(asyncio.Event()) for one in both))
        return await ErasureStore(store).waiting() == []

    await until(done, 60)
    assert await places(store, PERSON) == set()


async def test_what_comes_late_is_not_written(store: Store) -> None:
    """T-ERASE: webhooks, wishes, answers and dead messages that were under way, on whichever way."""
    await own(store)
    await erase_everything(store)
    fetch = process(store)
    webhook = WebhookReceived(
        delivery_id=PERSON, connection_id=99, url=ROOM, mapping=PlatformIds(location_id=PERSON), received_at=AT
    )
    await fetch.mark([webhook])
    await fetch.unmap(webhook)
    await fetch.miss({99})
    assert await fetch.mark_known(ResyncWanted(connection_id=99)) == 0
    began = await store.number()
    unmapped = ListingUnmapped(connection_id=99, url=ROOM, number=began, delivery_id=PERSON, received_at=AT)
    await deliver(store, page(began, {"ID": "7", "name": PERSON}), unmapped)
    async with store.transaction() as transaction:
        dead = Parked("syncaroo.fetch", "bad_json", 99, "fetch.17", "WebhookReceived", PERSON.encode(), 3)
        others = Parked("syncaroo.fetch", "bad_json", 7, "fetch.17", "WebhookReceived", b"{}", 3)
        await park(transaction, [dead, others])
    assert await left_of(store, 99) == set()
    assert await places(store, PERSON) == set()
    assert await left_of(store, 7) == {"parked"}


async def test_a_webhook_beside_that_of_an_erased_user_is_taken(store: Store) -> None:
    await own(store)
    await erase_everything(store)
    async with store.transaction() as transaction:
        wanted = [Wanted(one, ROOM, PlatformIds(), "webhook") for one in (7, 99, 8)]
        assert len(await want(transaction, wanted)) == 3
    async with store.reading() as transaction:
        rows = await transaction.rows(select(table_of(TargetRow).c.connection_id))
    assert sorted(row.connection_id for row in rows) == [7, 8]


@pytest.mark.parametrize("ending", ["answered", "gave_up", "put_off", "park", "judge"])
async def test_an_attempt_that_was_under_way_leaves_nothing(store: Store, ending: str) -> None:
    """T-ERASE: its target is gone, and so is its right to write."""
    await own(store)
    await authorise(store)
    fetch = process(store)
    async with store.transaction() as transaction:
        await want(transaction, [Wanted(99, ROOMS, PlatformIds(location_id=PERSON), "webhook", new_id())])
    (claim,), _ = await fetch.claim(1)
    await erase_everything(store)
    match ending:
        case "answered":
            await fetch.answered(claim, 200)
        case "gave_up":
            await fetch.gave_up(claim, "why")
        case "put_off":
            await fetch.put_off(claim, timedelta(0), "why")
        case "park":
            await fetch.park(claim, "why")
        case _:
            await SuspectStore(store, "me", brake=NO_BRAKE).judge_missing(claim)
    assert await left_of(store, 99) == set()
    assert await places(store, PERSON) == set()


async def erase_everything(store: Store) -> None:
    assert await ErasureStore(store).erase(PERSON) == [99]
    await publish(store)
    await erase_rest(store)
    assert await left_of(store, 99) == set()


async def test_who_writes_at_that_moment_is_waited_for(store: Store, other: Store) -> None:
    """T-ERASE: else what is not committed yet would come in behind the erasing."""
    await own(store)
    async with store.transaction() as transaction:
        await transaction.execute(table_of(FeedRow).insert().values(connection_id=99, first_read=False))
    async with store.transaction() as writing:
        await want(writing, [Wanted(99, f"https://x/v1/{PERSON}", PlatformIds(), "webhook")])
        erasing = asyncio.create_task(ErasureStore(other).erase(PERSON))
        if store.postgres:
            await until(lambda: _waits_or_ended(store, erasing), 60)
            assert not erasing.done()
    assert await erasing == [99]
    assert "target" in await left_of(store, 99)
    await publish(store)
    await erase_rest(store)
    assert await places(store, PERSON) == set()


async def _waits_or_ended(store: Store, erasing: asyncio.Task[Any]) -> bool:
    return erasing.done() or await lock_waiters(store) > 0


@ON_POSTGRESQL
async def test_confirming_and_revoking_wait_for_no_writer(store: Store, other: Store) -> None:
    """A long page of listings must not hold up a revocation. On SQLite all writers wait for each other."""
    await own(store)
    async with store.transaction() as writing:
        await want(writing, [Wanted(99, ROOM, PlatformIds(), "webhook")])
        async with within(5), other.transaction() as transaction:
            await transaction.execute(update(_connection).values(state="revoked"))
    async with store.reading() as reading:
        assert [row.state for row in await reading.rows(_connection.select())] == ["revoked"]


async def test_an_erased_user_s_connection_is_nobody_s_for_ever(gateway: Gateway) -> None:
    """T-ERASE: the same user anew, and another one: both need another connection."""
    await gateway.add_user(PERSON, "ada")
    await gateway.add_user(OTHER, "bob")
    pair = await gateway.connect()
    assert (await gateway.admin("DELETE", f"users/{PERSON}"))[0] == 204
    assert (await gateway.check(pair["accessToken"])).status == 401
    assert (await gateway.refresh(pair["refreshToken"]))[0] == 400
    shown = (await gateway.admin("GET", "connections/99"))[1]
    assert (shown["userId"], shown["state"]) == (None, "revoked")
    assert (await gateway.admin("POST", "connections/99/resync"))[0] == 409
    await gateway.add_user(PERSON, "ada")
    for login in ("ada", "bob"):
        gateway.http.session.cookie_jar.clear()
        assert (await gateway.log_in(authorize(99), login)).status == 303
        answer = await gateway.http.get(authorize(99), allow_redirects=False)
        assert answer.status == 400, "never a redirect"
    assert [row.user_id for row in await gateway.rows(ConnectionRow)] == [NOBODY]
    await gateway.connect(100)


async def test_a_user_who_is_only_in_connections_can_be_erased(store: Store) -> None:
    """One whose account went in another way."""
    async with store.transaction() as transaction:
        row = {"connection_id": 99, "user_id": PERSON, "state": "revoked", "created_at": AT, "revoked_at": AT}
        await transaction.execute(_connection.insert().values(row))
    assert await ErasureStore(store).erase(PERSON) == [99]
    assert await ErasureStore(store).erase(PERSON) is None
    await erase_rest(store)
    assert await ErasureStore(store).waiting() == []
