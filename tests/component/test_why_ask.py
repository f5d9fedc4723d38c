"""What `gateway why` asks, of the real admin API on both databases: which listing is meant, and what is about it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from common.codec import dumps
from common.identity import listing_id_of, place_of
from common.store.parked import Parked, park
from ops.admin import AdminApi
from ops.why.ask import NotFound, ask
from schemas.tables import AttemptRow, ListingRow, TargetRow, table_of
from tests.component.gateway_parts import Gateway, running

HOST = "https://api.syncaroo.com"
ROOMS = "/v1/locations/5/resources"
NOW = datetime.now(UTC)


class Operator:
    """The gateway under test with a few listings, and an operator's way to ask."""

    def __init__(self, gateway: Gateway, admin: AdminApi) -> None:
        self.gateway = gateway
        self.admin = admin

    async def add(self, table: type[Any], *rows: dict[str, Any]) -> None:
        async with self.gateway.store.transaction() as transaction:
            for row in rows:
                await transaction.execute(table_of(table).insert().values(row))

    async def listing(self, path: str, connection_id: int = 99) -> str:
        place = place_of(f"{HOST}{path}")
        item_id = place.segment or path.rpartition("/")[-1]
        listing_id = listing_id_of(connection_id, place.scope, item_id)
        await self.add(
            ListingRow,
            {
                "connection_id": connection_id, "listing_id": listing_id, "scope": place.scope, "item_id": item_id,
                "own_path": path, "attribute_type": place.noun, "body": "{}", "version": 1, "deleted": False,
            },
        )  # fmt: skip
        return listing_id

    async def target(self, path: str, connection_id: int = 99) -> None:
        row = {"connection_id": connection_id, "url": f"{HOST}{path}", "host": "api.syncaroo.com", "reason": "webhook"}
        await self.add(TargetRow, row)

    async def attempt(self, path: str, started: int) -> None:
        row = {"connection_id": 99, "url": f"{HOST}{path}", "path": path, "started": started, "reason": "webhook"}
        await self.add(AttemptRow, row | {"outcome": "answered", "at": NOW})

    async def refused(self, name: str) -> str:
        with pytest.raises(NotFound) as refused:
            await ask(self.admin, name, 10)
        return str(refused.value)


@pytest.fixture
async def operator(database_url: str) -> AsyncIterator[Operator]:
    async with (
        running(database_url) as gateway,
        AdminApi(str(gateway.http.make_url("")), "operators-token") as admin,
    ):
        yield Operator(gateway, admin)


async def test_one_listing_has_many_names(operator: Operator) -> None:
    listing_id = await operator.listing(f"{ROOMS}/7")
    await operator.listing(f"{ROOMS}/70")
    names = [
        *(listing_id, "99/resources/7", "99/resource/7", f"{ROOMS}/7", f"{HOST}{ROOMS}/7"),
        *(f"{HOST}//v1/locations/5/resources/7/?full=1#top", "v1/locations/5/resources/7"),
    ]
    for name in names:
        told = await ask(operator.admin, name, 10)
        assert told.listing is not None, name
        assert (told.listing["listingId"], told.path, told.collection) == (listing_id, f"{ROOMS}/7", ROOMS)


async def test_the_history_and_how_its_urls_stand(operator: Operator) -> None:
    await operator.listing(f"{ROOMS}/7")
    for path in (f"{ROOMS}/7", ROOMS, f"{ROOMS}/7/rates", f"{ROOMS}/70"):
        await operator.target(path)
    await operator.target(f"{ROOMS}/7", connection_id=98)
    for started in (10, 20, 30):
        await operator.attempt(f"{ROOMS}/7", started)
    await operator.attempt(ROOMS, 25)
    told = await ask(operator.admin, "99/resources/7", 3)
    assert [item["started"] for item in told.history] == [30, 25, 20]
    assert told.more
    assert [target["url"] for target in told.targets] == [f"{HOST}{ROOMS}/7", f"{HOST}{ROOMS}"], "its own first"
    assert {target["connectionId"] for target in told.targets} == {99}
    everything = await ask(operator.admin, "99/resources/7", 1000)
    assert (len(everything.history), everything.more) == (4, False)
    assert (told.grant["state"], told.connection) == ("none", None)


async def test_a_url_that_never_became_a_listing_has_a_story_too(operator: Operator) -> None:
    await operator.target(f"{ROOMS}/8")
    await operator.attempt(f"{ROOMS}/8", 10)
    told = await ask(operator.admin, f"{HOST}{ROOMS}/8", 10)
    assert (told.listing, told.connection_id, told.path) == (None, 99, f"{ROOMS}/8")
    assert [item["started"] for item in told.history] == [10]
    await operator.target(f"{ROOMS}/8", connection_id=98)
    assert "wanted for the connections 98, 99" in await operator.refused(f"{ROOMS}/8")


async def test_what_is_parked_for_it(operator: Operator) -> None:
    await operator.listing(f"{ROOMS}/7")

    def parked(reason: str, body: Any, connection_id: int = 99) -> Parked:
        return Parked("syncaroo.fetch", reason, connection_id, "fetch.1", "WebhookReceived", dumps(body), 1)

    def page(*ids: Any, path: str = ROOMS) -> dict[str, Any]:
        return {"source": {"url": f"{HOST}{path}"}, "shape": "list", "items": [{"ID": one} for one in ids]}

    own, room = f"{HOST}{ROOMS}/7", f"{HOST}{ROOMS}/8"
    letters = [
        parked("its own", {"url": f"{own}/?full=1"}),
        parked("its collection", {"url": f"{HOST}{ROOMS}"}),
        parked("in a page", page(6, 7)),
        parked("gone", {"source": {"url": own}}),
        *(parked("not in a page", page(6)), parked("in another's", page(7, path="/v1/locations/6/resources"))),
        *(parked("another", {"url": room}), parked("of another connection", {"url": own}, 98)),
        *(parked("no target", {"body": {"url": own}}), parked("a list", [1])),
    ]
    async with operator.gateway.store.transaction() as transaction:
        await park(transaction, letters)
    told = await ask(operator.admin, "99/resources/7", 10)
    assert {letter["reason"] for letter in told.dead_letters} == {"its own", "its collection", "in a page", "gone"}


async def test_unknown_names_come_with_what_ends_alike(operator: Operator) -> None:
    assert await operator.refused("nothing") == "No listing is known as nothing. gateway listings shows those that are."
    ids = [await operator.listing(f"/v1/locations/{number}/resources/7") for number in range(7)]
    for name in ("7", "98/resources/7", "99/rates/7", "/v1/locations/9/resources/7/", f"{HOST}/v1/rates/7?a=/8"):
        said = await operator.refused(name)
        assert said.startswith(f"No listing is known as {name}. These end alike:\n  ")
        assert said.endswith("\n  and 2 more")
        shown = [f"  {one}  99  /v1/locations/{number}/resources/7\n" for number, one in enumerate(ids)]
        assert sum(line in said for line in shown) == 5


async def test_a_name_of_several_is_not_guessed(operator: Operator) -> None:
    ids = [await operator.listing(f"{ROOMS}/{room}/rates/1") for room in (7, 8)]
    said = await operator.refused("99/rates/1")
    assert said.startswith("99/rates/1 may be any of these; give one's listingId:\n")
    assert all(f"  {one}  99  {ROOMS}/" in said for one in ids)
    await operator.listing(f"{ROOMS}/7/rates/1", connection_id=98)
    assert "98" in await operator.refused(f"{ROOMS}/7/rates/1")
