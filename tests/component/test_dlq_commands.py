"""`gateway dlq` as a person or a script runs it, against a running ingress."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from common.codec import loads
from common.store.parked import Parked, park
from schemas.tables import ParkedRow, table_of
from tests.component.terminal_parts import Terminal, terminal_at

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""What is said is the same on both; the stores are tested on both."""

_parked = table_of(ParkedRow)


@pytest.fixture
async def terminal(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Terminal]:
    """Three dead letters: two of the fetch worker, one of them old, and one of the token worker with a secret in it."""
    async with terminal_at(database_url, monkeypatch, tmp_path) as found:
        async with found.gateway.store.transaction() as transaction:
            for queue, reason, body in (
                ("fetch", "bad_json", b"\xffnot json"),
                ("fetch", "not_found", b'{"connectionId":99}'),
                ("token", "bad_json", b'{"sealedCode":"gAAA","n":1}'),
            ):
                await park(transaction, [letter(queue, reason, body)])
            old = await transaction.now() - timedelta(hours=3)
            await transaction.execute(update(_parked).where(_parked.c.reason == "not_found").values(parked_at=old))
        yield found


def letter(queue: str, reason: str, body: bytes) -> Parked:
    return Parked(f"syncaroo.{queue}", reason, 99, f"{queue}.1", "X", body, 3)


async def ids(terminal: Terminal, *filters: str) -> set[str]:
    """A set: ids of one millisecond have no order."""
    return {one["id"] for one in await terminal.result("dlq", "list", *filters)}


async def all_three(terminal: Terminal) -> list[str]:
    """The ids of the letters above, in the order above."""
    (first,) = await ids(terminal, "--queue", "fetch", "--reason", "bad_json")
    (old,) = await ids(terminal, "--reason", "not_found")
    (token,) = await ids(terminal, "--queue", "token")
    return [first, old, token]


async def test_filters(terminal: Terminal) -> None:
    first, old, token = await all_three(terminal)

    assert await ids(terminal, "--queue", "fetch") == {first, old}
    assert await ids(terminal, "--reason", "bad_json") == {first, token}
    assert await ids(terminal, "--older-than", "2h") == {old}
    assert await ids(terminal, "--newer-than", "2h", "--queue", "token") == {token}
    assert await ids(terminal, "--connection", "98") == set()
    assert "3 dead letters are here: 2 bad_json, 1 not_found" in await terminal.says("dlq", "list")


async def test_a_look_inside(terminal: Terminal) -> None:
    *_, token = await all_three(terminal)

    said = await terminal.says("dlq", "show", token)

    assert "reason: bad_json" in said
    assert "replay would send it to syncaroo.token again" in said
    assert '"sealedCode": "[sealed]"' in said
    assert (await terminal.result("dlq", "show", token))["body"]["n"] == 1
    assert "404" in await terminal.refusal("dlq", "show", "nothing")


async def test_replay_by_filter_after_a_preview(terminal: Terminal) -> None:
    """T-REPLAY."""
    said = await terminal.says("dlq", "replay", "--queue", "fetch", "--yes")

    assert "2 dead letters are here: 1 bad_json, 1 not_found" in said
    assert said.endswith("2 replayed")
    assert [one.routing_key for one in terminal.gateway.broker.published] == ["fetch.1", "fetch.1"]
    assert len(await ids(terminal)) == 1


async def test_nobody_to_ask_is_a_reason_to_do_nothing(terminal: Terminal) -> None:
    assert "--yes" in await terminal.refusal("dlq", "drop", "--all", code=2)
    assert "--yes" in await terminal.refusal("dlq", "drop", "--all", typed="y\n", code=2)
    assert "--all" in await terminal.refusal("dlq", "drop", "--yes", code=2)

    assert len(await ids(terminal)) == 3


async def test_one_that_fails_does_not_stop_the_others(terminal: Terminal) -> None:
    *_, token = await all_three(terminal)
    terminal.gateway.broker.without = "token"

    result = await terminal.run("dlq", "replay", "--all", "--yes", "--json")

    assert result.exit_code == 1
    told = loads(result.stdout.encode())
    assert len(told["replayed"]) == 2
    assert [one["id"] for one in told["failed"]] == [token]
    assert "No queue takes token.1" in told["failed"][0]["why"]
    assert await ids(terminal) == {token}
    assert f"{token}: " in await terminal.refusal("dlq", "replay", token, "--yes")


async def test_drop(terminal: Terminal) -> None:
    first, _, token = await all_three(terminal)

    assert (await terminal.says("dlq", "drop", first, "--yes")).endswith("1 dropped")
    assert await terminal.result("dlq", "drop", "--older-than", "2h", "--yes")
    assert await ids(terminal) == {token}
    assert "there are none such" in await terminal.says("dlq", "drop", "--reason", "nothing", "--yes")
