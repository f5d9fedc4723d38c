"""What a person sees and decides about held listings: by the admin API and by `gateway held`, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from common.codec import loads
from ops.cli import app
from schemas.tables import ListingRow, SuspectRow, TargetRow, table_of
from tests.component.gateway_parts import Gateway, running

ROOMS = "/v1/locations/5/resources"
HELD = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Gateway]:
    """Of connection 99 four rooms are held, of 100 one that has no URL of its own; another one is pending."""
    async with running(database_url) as gateway:
        await gateway.add_user()
        for connection_id in (99, 100):
            await gateway.code(connection_id)
        await hold(gateway, *range(4))
        await hold(gateway, 8, connection_id=100, url=None)
        await hold(gateway, 9, state="pending")
        yield gateway


async def hold(gateway: Gateway, *numbers: int, connection_id: int = 99, state: str = "held", **more: Any) -> None:
    key = {"connection_id": connection_id}
    listings = [
        {
            **key, "listing_id": f"listing-{number}", "scope": ROOMS, "item_id": str(number), "own_url": None,
            "own_path": f"{ROOMS}/{number}", "attribute_type": "resources", "body": f'{{"name":"Room {number}"}}',
            "version": 2, "deleted": False,
        }
        for number in numbers
    ]  # fmt: skip
    suspects = [
        {
            **key, "listing_id": f"listing-{number}", "url": f"https://api.syncaroo.com{ROOMS}/{number}",
            "state": state, "walk": number, "since": HELD, **more,
        }
        for number in numbers
    ]  # fmt: skip
    async with gateway.store.transaction() as transaction:
        await transaction.execute(table_of(ListingRow).insert(), listings)
        await transaction.execute(table_of(SuspectRow).insert(), suspects)


async def command(gateway: Gateway, *words: str, say: str = "") -> tuple[int, str]:
    """`gateway held …` as a person at a terminal runs it: exit code and what it said."""
    arguments = ["held", *words, "--url", str(gateway.http.make_url("/"))]
    environment = {"ADMIN_TOKEN": "operators-token"}
    done = await asyncio.to_thread(CliRunner().invoke, app, arguments, input=say, env=environment)
    return done.exit_code, done.output


async def states(gateway: Gateway) -> dict[str, str]:
    return {row.listing_id.removeprefix("listing-"): row.state for row in await gateway.rows(SuspectRow)}


HELD_AND_PENDING = {"0": "held", "1": "held", "2": "held", "3": "held", "8": "held", "9": "pending"}


async def test_what_is_held_page_by_page(gateway: Gateway) -> None:
    assert (await gateway.admin("GET", "status"))[1]["held"] == 5
    found = (await gateway.admin("GET", "held"))[1]["items"]
    assert [one["itemId"] for one in found] == ["0", "1", "2", "3", "8"]
    assert found[0] == {
        "listingId": "listing-0", "connectionId": 99, "attributeType": "resources", "itemId": "0", "locationId": None,
        "resourceId": None, "resourceType": None, "version": 2, "current": {"name": "Room 0"}, "deleted": False,
        "revoked": False, "ownUrl": f"https://api.syncaroo.com{ROOMS}/0", "since": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    assert (found[4]["connectionId"], found[4]["ownUrl"]) == (100, None)
    assert len((await gateway.admin("GET", "held?connectionId=99"))[1]["items"]) == 4
    seen: list[str] = []
    after = ""
    for _ in range(3):
        page = (await gateway.admin("GET", f"held?limit=2{after}"))[1]
        seen += [one["itemId"] for one in page["items"]]
        after = f"&after={page['next']}"
    assert (seen, page["next"]) == ([one["itemId"] for one in found], None)
    assert (await gateway.admin("GET", "held?connectionId=x"))[0] == 400


async def test_approved_ones_are_asked_at_their_own_urls(gateway: Gateway) -> None:
    assert await gateway.admin("POST", "connections/99/held/approve") == (202, {"held": 4})
    assert await states(gateway) == {**dict.fromkeys("0123", "approved"), "8": "held", "9": "pending"}
    targets = await gateway.rows(TargetRow)
    assert {row.url for row in targets} == {f"https://api.syncaroo.com{ROOMS}/{number}" for number in range(4)}
    assert {(row.reason, row.wanted > row.answered) for row in targets} == {("hand", True)}
    assert {row.walk for row in await gateway.rows(SuspectRow) if row.state == "approved"} == {0, 1, 2, 3}
    assert await gateway.admin("POST", "connections/99/held/approve") == (202, {"held": 0}), "once"
    assert await gateway.admin("POST", "connections/100/held/approve") == (202, {"held": 1})
    assert len(await gateway.rows(TargetRow)) == 4, "without a URL of its own the next walk concludes"


async def test_discarded_ones_are_no_suspects_any_more(gateway: Gateway) -> None:
    assert await gateway.admin("POST", "connections/99/held/discard") == (200, {"held": 4})
    assert await states(gateway) == {"8": "held", "9": "pending"}
    assert await gateway.rows(TargetRow) == []


async def test_a_decision_is_about_what_the_person_saw(gateway: Gateway) -> None:
    for decision in ("approve", "discard"):
        status, said = await gateway.admin("POST", f"connections/99/held/{decision}?held=3")
        assert (status, said["type"]) == (409, "/problems/held-changed")
        assert "4 listings" in said["detail"]
    assert await states(gateway) == HELD_AND_PENDING
    assert (await gateway.admin("POST", "connections/99/held/approve?held=4"))[0] == 202
    for path, status in (("98/held/approve", 404), ("98/held/discard", 404), ("99/held/approve?held=x", 400)):
        assert (await gateway.admin("POST", f"connections/{path}"))[0] == status


async def test_a_revoked_connection_is_not_asked_any_more(gateway: Gateway) -> None:
    await gateway.admin("DELETE", "connections/99")
    assert (await gateway.admin("POST", "connections/99/held/approve"))[1]["type"] == "/problems/connection-revoked"
    assert await states(gateway) == HELD_AND_PENDING
    assert (await gateway.admin("POST", "connections/99/held/discard"))[0] == 200


async def test_the_command_lists_shows_asks_and_decides(gateway: Gateway) -> None:
    code, said = await command(gateway, "list")
    assert code == 0
    assert any("2026-01-02 03:04" in line and "Room 3" in line for line in said.splitlines()), "one line for each"
    assert "connection 99: 4 held" in said
    assert [one["itemId"] for one in loads((await command(gateway, "list", "100", "--json"))[1].encode())] == ["8"]

    code, said = await command(gateway, "approve", "99", say="n\n")
    assert (code, "Room 0" in said, "4 to be deleted" in said) == (1, True, True)
    assert await states(gateway) == HELD_AND_PENDING
    assert (await command(gateway, "approve", "99", "--json"))[0] == 2, "a program cannot be asked"
    code, said = await command(gateway, "approve", "99", say="y\n")
    assert (code, "4 approved" in said) == (0, True)
    assert (await states(gateway))["0"] == "approved"
    assert "nothing is held" in (await command(gateway, "approve", "99"))[1]

    with capture_logs() as logs:
        assert loads((await command(gateway, "discard", "100", "--yes", "--json"))[1].encode()) == {"discarded": 1}
    decided = {"event": "held.decided", "connection_id": 100, "decision": "discard", "held": 1, "log_level": "info"}
    assert decided in logs
    assert "8" not in await states(gateway)


async def test_the_command_shows_no_more_than_a_screen(gateway: Gateway) -> None:
    await hold(gateway, *range(100, 130), connection_id=100)
    code, said = await command(gateway, "discard", "100", "--yes")
    assert code == 0
    assert "31 to be kept (11 more: gateway held list 100)" in said
    assert said.count("Room") == 20
