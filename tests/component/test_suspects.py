"""Deletion through suspects on both databases: walks, 404s and persons at once, in every order."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text, update

from common.broker.consumer import Delivery
from common.codec import dumps, loads
from common.identity import listing_id_of, place_of
from common.store.engine import Store
from common.store.targets import Wanted, want
from common.store.turns import lock_feeds
from schemas.messages import ItemGone, Json, ListingUnmapped, Message, PageFetched, PlatformIds, Reason, Shape, Source
from schemas.tables import EventRow, ListingRow, SuspectRow, TargetRow, table_of
from tests.component.target_parts import authorise
from tests.waiting import until
from workers.fetch.claim import Claim
from workers.fetch.store.claims import ClaimStore
from workers.fetch.store.outcomes import OutcomeStore
from workers.fetch.store.suspects import Judged, SuspectStore
from workers.reconcile.handler import ReconcileHandler
from workers.reconcile.store.listings import ListingStore

API = "https://api.syncaroo.com"
PLACE = f"{API}/v1/locations/5"
ROOMS = f"{PLACE}/resources"
UNITS = f"{API}/v1/units"
AT = datetime(2026, 1, 2, tzinfo=UTC)

_suspect = table_of(SuspectRow)
_target = table_of(TargetRow)


class Gateway:
    """A fetch and a reconcile process as far as deletion goes, and the person who decides."""

    def __init__(self, store: Store, brake: float = 0.3) -> None:
        self.store = store
        self.claims = ClaimStore(store, "me", rate=10_000.0, interval=timedelta(0))
        self.outcomes = OutcomeStore(store, "me", rate=10_000.0)
        self.suspects = SuspectStore(store, "me", brake=brake)
        self.handler = ReconcileHandler(ListingStore(store, delete_brake=brake), _nobody, timedelta(0))

    async def claim(self, url: str, reason: Reason = "resync") -> Claim:
        """A claim on this URL, whatever else is due."""
        async with self.store.transaction() as transaction:
            await transaction.execute(
                update(_target).values(
                    answered=_target.c.wanted, not_before=None, lease_until=None, lease_owner=None, walk=None
                )
            )
            await want(transaction, [Wanted(99, url, PlatformIds(), reason, None)])
        (claim,), _ = await self.claims.claim(1)
        return claim

    async def walk(self, url: str = ROOMS, seen: Iterable[object] = (), claim: Claim | None = None) -> Judged:
        """A complete walk that met only these, and its end."""
        claim = claim or await self.claim(url)
        judged = await self.suspects.judge(claim, frozenset(map(str, seen)))
        for listing_id in judged.gone:
            await self.tell(
                ItemGone(connection_id=99, source=await self.source(url, claim.first), listing_id=listing_id)
            )
        await self.outcomes.answered(claim, 200)
        return judged

    async def missing(self, url: str = ROOMS) -> Judged:
        """A 404 on the collection."""
        claim = await self.claim(url)
        judged = await self.suspects.judge_missing(claim)
        await self.outcomes.answered(claim, 404)
        return judged

    async def page(self, url: str, *items: Json, shape: Shape = "list", began: int | None = None) -> None:
        """An answer with these items."""
        source = await self.source(url, began)
        page = PageFetched(
            connection_id=99, source=source, mapping=PlatformIds(), shape=shape, items=list(items), page=1
        )
        await self.tell(page)

    async def item(self, url: str, *, began: int | None = None, **members: Any) -> None:
        """An answer of the item's own URL."""
        await self.page(url, {"ID": url.rsplit("/", 1)[-1], **members}, shape="item", began=began)

    async def gone(self, url: str, *, began: int | None = None) -> ItemGone:
        """A 404 on the item's own URL; gives the message, to tell it again."""
        message = ItemGone(connection_id=99, source=await self.source(url, began))
        await self.tell(message)
        return message

    async def tell(self, message: Message) -> None:
        await self.handler([Delivery(dumps(message), {"schema": type(message).__name__}, "reconcile.1")])

    async def number(self) -> int:
        return await self.store.number()

    async def source(self, url: str, began: int | None = None) -> Source:
        began = await self.store.number() if began is None else began
        ended = max(began, await self.store.number())
        return Source(
            url=url, began=began, ended=ended, asked=0, attempt=0, reason="resync", delivery_id=None, fetched_at=AT,
            status=200,
        )  # fmt: skip

    async def rooms(self, count: int) -> list[str]:
        """So many rooms are known, from their list; their own URLs."""
        await self.page(ROOMS, *({"ID": number} for number in range(count)))
        return [f"{ROOMS}/{number}" for number in range(count)]

    async def rows(self, table: type[Any]) -> list[Any]:
        async with self.store.reading() as transaction:
            return list(await transaction.rows(table_of(table).select()))

    async def live(self) -> set[str]:
        return {row.item_id for row in await self.rows(ListingRow) if row.version and not row.deleted}

    async def states(self) -> dict[str, str]:
        """The states of suspects by item id."""
        items = {row.listing_id: row.item_id for row in await self.rows(ListingRow)}
        return {items[row.listing_id]: row.state for row in await self.rows(SuspectRow)}

    async def due(self) -> set[str]:
        return {row.url for row in await self.rows(TargetRow) if row.wanted > row.answered}

    async def told(self) -> list[tuple[int, int]]:
        """What persons were told: held, live."""
        rows = sorted(await self.rows(EventRow), key=lambda row: row.position)
        data = [loads(row.data.encode()) for row in rows if row.type == "sync.held"]
        return [(one["held"], one["live"]) for one in data]

    async def set(self, **values: Any) -> None:
        """What time and persons do to the suspects."""
        async with self.store.transaction() as transaction:
            await transaction.execute(update(_suspect).values(values))


async def _nobody() -> None: ...


def numbers(first: int, last: int) -> set[str]:
    return {str(number) for number in range(first, last)}


@pytest.fixture
async def store(store: Store) -> Store:
    """With a grant."""
    await authorise(store)
    return store


@pytest.fixture
def gateway(store: Store) -> Gateway:
    return Gateway(store)


# --- a walk ----------------------------------------------------------------------------------------------------------


async def test_what_a_complete_walk_did_not_meet_is_asked_itself(store: Store) -> None:
    gateway = Gateway(store, brake=1.0)
    await gateway.page(ROOMS, *({"ID": one} for one in ("7", "8", "9/b", "11", "12")))
    await gateway.item(f"{ROOMS}/10?x=1", ID="10")
    await gateway.gone(f"{ROOMS}/12")
    await gateway.page(f"{API}/v1/locations/2/resources", {"ID": "15"})
    claim = await gateway.claim(ROOMS)
    assert await gateway.outcomes.knows(claim)
    await gateway.page(ROOMS, {"ID": "11"})  # answered after the walk began

    judged = await gateway.walk(seen={"7"}, claim=claim)

    assert judged == Judged(asked=3)
    assert await gateway.due() == {f"{ROOMS}/8", f"{ROOMS}/9%2Fb", f"{ROOMS}/10?x=1"}
    assert set((await gateway.states()).values()) == {"pending"}


async def test_everything_in_a_collection_that_is_missing_is_asked_itself(gateway: Gateway) -> None:
    assert not await gateway.outcomes.knows(await gateway.claim(ROOMS))
    urls = await gateway.rooms(2)
    assert await gateway.missing() == Judged(asked=2)
    assert await gateway.due() == set(urls)


async def test_three_of_a_hundred_go_without_a_person(gateway: Gateway) -> None:
    urls = await gateway.rooms(100)
    assert await gateway.walk(seen=range(3, 100)) == Judged(asked=3)
    for url in urls[:3]:
        await gateway.gone(url)
    assert await gateway.live() == numbers(3, 100)
    assert (await gateway.states(), await gateway.told()) == ({}, [])


async def test_too_many_are_held_as_one_batch_and_a_person_is_told_once(gateway: Gateway) -> None:
    """CONTRACT §4, `sync.held`; a held listing's own 404 changes nothing, told twice or not."""
    urls = await gateway.rooms(100)
    assert await gateway.walk(seen=range(60, 100)) == Judged(held=60)
    assert await gateway.due() == set(), "nobody asks before the person has decided"
    for url in urls[:60]:
        message = await gateway.gone(url)
    await gateway.tell(message)
    assert await gateway.walk(seen=range(60, 100)) == Judged(), "the next walk finds them held"
    assert len(await gateway.live()) == 100
    assert await gateway.states() == dict.fromkeys(numbers(0, 60), "held")
    assert await gateway.told() == [(60, 100)]


async def test_without_a_brake_everything_goes(store: Store) -> None:
    gateway = Gateway(store, brake=1.0)
    urls = await gateway.rooms(10)
    assert await gateway.walk() == Judged(asked=10)
    for url in urls:
        await gateway.gone(url)
    assert await gateway.live() == set()


async def test_an_old_walk_judged_after_newer_answers_finds_nothing(gateway: Gateway) -> None:
    await gateway.rooms(10)
    old = await gateway.claim(ROOMS)
    await gateway.rooms(10)
    assert await gateway.walk(claim=old) == Judged()
    assert await gateway.states() == {}


async def test_a_list_at_the_url_of_one_item_or_behind_a_query_says_nothing_about_the_others(gateway: Gateway) -> None:
    """CONTRACT §5.6: a filtered list is complete in itself, and no proof that what it leaves out is gone."""
    urls = await gateway.rooms(3)
    assert await gateway.walk(urls[0], seen=[0, 9]) == Judged()
    assert await gateway.walk(f"{ROOMS}?type=office", seen=[0]) == Judged()
    assert (await gateway.states(), await gateway.due()) == ({}, set())


async def test_who_lost_the_lease_judges_nothing(gateway: Gateway) -> None:
    await gateway.rooms(10)
    late = await gateway.claim(ROOMS)
    await gateway.claim(ROOMS)
    assert await gateway.suspects.judge(late, frozenset()) == Judged()
    assert await gateway.suspects.judge_missing(late) == Judged()
    assert await gateway.states() == {}


async def test_a_suspect_whose_url_is_never_answered_is_asked_anew_and_counts_for_an_hour(gateway: Gateway) -> None:
    await gateway.rooms(20)
    assert await gateway.walk(seen=range(6, 20)) == Judged(asked=6)
    assert await gateway.walk(seen=range(6, 20)) == Judged(asked=6), "they passed: no second question"
    assert await gateway.walk(seen=range(7, 20)) == Judged(asked=6, held=1), "six are on their way"
    await gateway.set(since=datetime.now(UTC) - timedelta(minutes=61))
    assert await gateway.walk(seen=[*range(6), *range(7, 20)]) == Judged()
    assert await gateway.walk(seen=[*range(5), *range(7, 20)]) == Judged(asked=1), "only the held one counts"
    assert await gateway.told() == [(1, 20)]


# --- single 404s, and items that say so ------------------------------------------------------------------------------


async def test_single_deletions_count_alike(gateway: Gateway) -> None:
    urls = await gateway.rooms(20)
    messages = [await gateway.gone(url) for url in urls[:9]]
    for message in messages:
        await gateway.tell(message)
    assert await gateway.live() == numbers(6, 20), "6 of 20 are within the brake"
    assert await gateway.states() == {"6": "held", "7": "held", "8": "held"}
    assert await gateway.told() == [(1, 14), (2, 14)], "not for each"


async def test_an_hour_later_there_is_room_again(gateway: Gateway) -> None:
    urls = await gateway.rooms(20)
    for url in urls[:6]:
        await gateway.gone(url)
    async with gateway.store.transaction() as transaction:
        ago = datetime.now(UTC) - timedelta(minutes=61)
        await transaction.execute(table_of(ListingRow).update().values(changed_at=ago))
    for url in urls[6:9]:
        await gateway.gone(url)
    assert await gateway.live() == numbers(9, 20)


async def test_items_that_say_that_they_are_deleted_ask_as_one_batch(gateway: Gateway) -> None:
    await gateway.rooms(10)
    await gateway.page(ROOMS, *({"ID": number, "deleted": True} for number in range(4)), {"ID": 4, "new": 1})
    assert await gateway.states() == dict.fromkeys(numbers(0, 4), "held")
    assert await gateway.told() == [(4, 10)]
    await gateway.page(ROOMS, *({"ID": number, "status": "Deleted"} for number in range(5, 8)))
    assert await gateway.states() == dict.fromkeys(numbers(0, 4) | numbers(5, 8), "held"), "on top of the held ones"


async def test_unmapped_of_everything_is_never_held_and_counts(gateway: Gateway) -> None:
    urls = await gateway.rooms(10)
    for number, url in enumerate(urls[:9]):
        await gateway.tell(
            ListingUnmapped(
                connection_id=99, url=url, number=await gateway.number(), delivery_id=f"d{number}", received_at=AT
            )
        )
    assert await gateway.live() == {"9"}
    await gateway.gone(urls[9])
    assert await gateway.states() == {"9": "held"}
    assert await gateway.told() == [(1, 1)]


async def test_a_tombstone_keeps_its_version_and_stays_deleted_for_older_answers(gateway: Gateway) -> None:
    (url,) = await gateway.rooms(1)
    before = await gateway.number()
    await gateway.gone(url)
    await gateway.item(url, began=before)
    (row,) = await gateway.rows(ListingRow)
    assert (row.version, row.deleted, row.body) == (2, True, None)
    await gateway.item(url)
    (row,) = await gateway.rows(ListingRow)
    assert (row.version, row.deleted) == (3, False)


# --- leaving the held ------------------------------------------------------------------------------------------------


async def test_a_held_listing_that_is_met_again_is_held_no_more(gateway: Gateway) -> None:
    urls = await gateway.rooms(10)
    began = await gateway.number()
    await gateway.walk()
    assert len(await gateway.states()) == 10
    await gateway.item(urls[0])
    await gateway.page(ROOMS, {"ID": 1}, {"ID": 2})
    await gateway.item(urls[3], began=began)  # an answer from before the walk proves nothing
    assert set(await gateway.states()) == numbers(3, 10)
    assert len(await gateway.live()) == 10


async def test_what_a_person_agreed_to_goes_with_versions_going_on(gateway: Gateway) -> None:
    urls = await gateway.rooms(10)
    first = await gateway.gone(urls[0])
    await gateway.walk(seen=[9])
    await gateway.set(state="approved")
    await gateway.tell(first)  # in flight all the time
    for url in urls[1:8]:
        await gateway.gone(url)
    await gateway.item(urls[8])
    assert await gateway.live() == {"8", "9"}
    assert await gateway.states() == {}
    assert {row.version for row in await gateway.rows(ListingRow) if row.deleted} == {2}
    assert len(await gateway.told()) == 1


async def test_what_a_person_discarded_is_asked_anew_by_the_next_resync(gateway: Gateway) -> None:
    await gateway.rooms(10)
    await gateway.walk()
    async with gateway.store.transaction() as transaction:
        await transaction.execute(_suspect.delete())
    assert await gateway.walk() == Judged(held=10)
    assert await gateway.told() == [(10, 10), (10, 10)]


# --- children --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rooms", "others", "state"), [(2, 7, "pending"), (4, 4, "held"), (2, 0, "pending")])
async def test_what_lies_under_a_deleted_location_asks_the_brake(
    gateway: Gateway, rooms: int, others: int, state: str
) -> None:
    """Nothing under it is deleted but by its own answer; a location alone is one deletion."""
    await gateway.item(PLACE)
    urls = await gateway.rooms(rooms)
    for number in range(others):
        await gateway.item(f"{API}/v1/locations/{100 + number}")
    await gateway.gone(PLACE)
    assert await gateway.states() == dict.fromkeys(numbers(0, rooms), state)
    assert await gateway.live() == numbers(0, rooms) | numbers(100, 100 + others)
    assert await gateway.due() & set(urls) == (set(urls) if state == "pending" else set())
    assert await gateway.told() == ([(rooms, rooms + others)] if state == "held" else [])


async def test_what_a_person_agreed_to_for_a_location_holds_for_its_rooms(gateway: Gateway) -> None:
    for number in range(6):
        await gateway.item(f"{API}/v1/locations/{number}")
    await gateway.walk(f"{API}/v1/locations")
    await gateway.set(state="approved")
    await gateway.page(ROOMS, *({"ID": f"r{number}"} for number in range(8)))
    await gateway.gone(PLACE)
    assert {one: state for one, state in (await gateway.states()).items() if one[0] == "r"} == {
        f"r{number}": "pending" for number in range(8)
    }


async def test_an_unmapped_location_makes_no_suspects(gateway: Gateway) -> None:
    await gateway.item(PLACE)
    await gateway.rooms(1)
    number = await gateway.number()
    await gateway.tell(ListingUnmapped(connection_id=99, url=PLACE, number=number, delivery_id="d", received_at=AT))
    assert (await gateway.states(), await gateway.live()) == ({}, {"0"})


# --- listings without a URL of their own -----------------------------------------------------------------------------


async def test_without_a_url_of_its_own_a_second_complete_walk_concludes(gateway: Gateway) -> None:
    """CONTRACT §5.6."""
    await gateway.page(UNITS, {"ID": 1}, {"ID": 2}, {"ID": 3})
    assert await gateway.walk(UNITS, seen=[1]) == Judged()
    assert await gateway.states() == {"2": "absent", "3": "absent"}
    assert await gateway.due() == set()
    await gateway.page(UNITS, {"ID": 3})
    assert set(await gateway.states()) == {"2"}, "met again: the next walk is a first one"
    claim = await gateway.claim(UNITS)
    two = listing_id_of(99, place_of(UNITS).path, "2")
    assert (await gateway.suspects.judge(claim, frozenset({"1", "3"}))).gone == (two,)
    # Whoever judged it died before it was told: the walk is done again.
    assert (await gateway.walk(UNITS, seen=[1, 3])).gone == (two,)
    assert await gateway.live() == {"1", "3"}


async def test_two_walks_of_a_list_without_urls_hold_too_many(gateway: Gateway) -> None:
    await gateway.page(UNITS, *({"ID": number} for number in range(10)))
    assert await gateway.walk(UNITS, seen=range(6, 10)) == Judged()
    assert await gateway.walk(UNITS, seen=range(6, 10)) == Judged(held=6)
    assert await gateway.walk(UNITS, seen=range(6, 10)) == Judged()
    await gateway.set(state="approved")
    assert len((await gateway.walk(UNITS, seen=range(6, 10))).gone) == 6
    assert await gateway.live() == numbers(6, 10)
    assert await gateway.told() == [(6, 10)]


async def test_a_list_without_urls_that_is_missing_proves_nothing(gateway: Gateway) -> None:
    await gateway.page(UNITS, {"ID": 1})
    assert [await gateway.missing(UNITS), await gateway.missing(UNITS)] == [Judged(), Judged()]
    assert await gateway.live() == {"1"}


async def test_a_list_that_was_one_listing_is_never_asked_in_a_circle(gateway: Gateway) -> None:
    """Its own URL is the very one that was asked: a 404 is its own, a list of listings takes its place in two walks."""
    url = f"{ROOMS}/7/availability"
    await gateway.page(url, [{"start": "1"}], shape="whole")
    assert await gateway.walk(url, seen=[1]) == Judged()
    assert await gateway.due() == set()
    (listing,) = await gateway.rows(ListingRow)
    assert await gateway.missing(url) == Judged(gone=(listing.listing_id,))
    assert await gateway.due() == set()
    assert (await gateway.walk(url, seen=[1])).gone == (listing.listing_id,)
    assert await gateway.live() == set()


# --- at once ---------------------------------------------------------------------------------------------------------


async def test_two_walks_at_once_ask_the_brake_one_after_the_other(gateway: Gateway, database_url: str) -> None:
    """Each alone would pass; together they are too many."""
    await gateway.rooms(10)
    await gateway.page(f"{ROOMS}/0/rates", *({"ID": f"r{number}"} for number in range(10)))
    claims = [await gateway.claim(url) for url in (ROOMS, f"{ROOMS}/0/rates")]
    await _lease_all(gateway, claims)
    other = Gateway(Store(database_url))
    async with asyncio.TaskGroup() as tasks, gateway.store.transaction() as transaction:
        await lock_feeds(transaction, {99})
        first = tasks.create_task(gateway.suspects.judge(claims[0], frozenset(numbers(5, 10))))
        seen = frozenset(f"r{number}" for number in range(5, 10))
        second = tasks.create_task(other.suspects.judge(claims[1], seen))
        if gateway.store.postgres:  # SQLite's writers wait before they begin
            await until(lambda: _waiting(gateway.store, 2), what="both have come as far as they can")
    await other.store.close()
    judged = [first.result(), second.result()]
    assert sorted(judged, key=lambda one: one.held) == [Judged(asked=5), Judged(held=5)]
    assert await gateway.told() == [(5, 20)]


async def test_a_walk_and_single_404s_at_once_stay_within_the_brake(gateway: Gateway, database_url: str) -> None:
    urls = await gateway.rooms(40)
    claim = await gateway.claim(ROOMS)
    other = Gateway(Store(database_url))
    await asyncio.gather(
        gateway.suspects.judge(claim, frozenset(numbers(10, 40))),
        *((gateway, other)[number % 2].gone(url) for number, url in enumerate(urls[10:30])),
    )
    await other.store.close()
    states = await gateway.states()
    deleted = 40 - len(await gateway.live())
    pending = [one for one, state in states.items() if state == "pending"]
    assert deleted + len(pending) <= 12, "30 % of 40"
    assert deleted + len(states) == 30, "nobody is forgotten"


async def _waiting(store: Store, count: int) -> bool:
    """Whether so many transactions of this database wait for a lock."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with store.reading() as transaction:
        return bool((await transaction.execute(query)).scalar_one() >= count)


async def _lease_all(gateway: Gateway, claims: Collection[Claim]) -> None:
    async with gateway.store.transaction() as transaction:
        for claim in claims:
            held = update(_target).where(_target.c.url == claim.url)
            await transaction.execute(held.values(lease_owner="me", started=claim.started))
