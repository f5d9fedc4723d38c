"""What the fetcher does when Syncaroo says no: 429, 401, 403, 404, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from schemas.messages import ItemGone
from schemas.tables import BudgetRow, GrantRow, TargetRow, table_of
from tests.component.fetch_parts import Bench, bench, pages_of
from tests.component.test_walks import ids, known
from workers.fetch import attempt as attempts

PLACE = "/v1/locations/5"
ROOMS = f"{PLACE}/resources"
MINUTES = timedelta(minutes=9)


@pytest.fixture(name="run")
async def _run(database_url: str) -> AsyncIterator[Bench]:
    async with bench(database_url) as made:
        yield made


def refusing(status: int, **headers: str) -> Any:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={name.replace("_", "-"): text for name, text in headers.items()})

    return answer


def only_for(token: str, body: Any) -> Any:
    """Answers to this token alone."""

    async def answer(request: web.Request) -> web.Response:
        if request.headers["Authorization"] != f"Bearer {token}":
            return web.Response(status=401)
        return web.json_response(body)

    return answer


async def test_the_host_s_wish_for_a_pause_holds_for_everybody(run: Bench) -> None:
    """T-API-429: seconds or a date, cut to an hour, never earlier than RETRY_DELAYS; 503 with Retry-After alike."""
    cases = [
        (429, "7", 7), (429, "-5", 1), (429, "soon", 1), (503, "40", 40),
        (429, format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True), 90),
        (429, "999999", 3600), (503, "5", 3600),
    ]  # fmt: skip
    for number, (status, wait, least) in enumerate(cases):
        path = f"/v1/locations/{number}"
        run.api.answers[path] = refusing(status, Retry_After=wait)
        async with run.store.transaction() as transaction:
            await transaction.execute(table_of(TargetRow).delete())
            if number < len(cases) - 1:
                await transaction.execute(table_of(BudgetRow).update().values(blocked_until=None))
        before = datetime.now(UTC)
        await run.want(path)
        if number == len(cases) - 1:
            await run.attempt()
            assert path not in run.api.calls, "nobody calls the host meanwhile"
            continue
        (target,) = await run.attempt()
        (budget,) = await run.rows(BudgetRow)
        slack = timedelta(seconds=30)  # between this and the store's clock, and for a slow machine
        assert timedelta(seconds=least) - slack < budget.blocked_until - before < timedelta(seconds=least) + slack
        assert target.not_before - before >= timedelta(seconds=1), "its own back-off is kept"
        assert (target.attempts, target.last_status) == (1, status)
    assert await run.parked() == []


async def test_a_shorter_pause_does_not_end_a_longer_one(run: Bench) -> None:
    """T-API-429: two calls were under way when the host began to refuse."""
    answers = iter([refusing(429, Retry_After="3000"), refusing(429, Retry_After="1")])

    async def both(request: web.Request) -> web.Response:
        response: web.Response = await next(answers)(request)
        return response

    for path in ("/v1/locations/1", "/v1/locations/2"):
        run.api.answers[path] = both
        await run.want(path)
    await run.attempt(2)
    (budget,) = await run.rows(BudgetRow)
    assert budget.blocked_until > datetime.now(UTC) + timedelta(minutes=40)


async def test_a_walk_gives_way_when_the_host_wants_a_long_pause(run: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-API-429: it holds no place in the queue meanwhile, is not blamed, and goes on where it was."""
    monkeypatch.setattr(attempts, "BUDGET_SECONDS", 0.1)
    run.api.answers = pages_of(ids(1), ids(2), path=ROOMS, base=run.api.base)
    first = run.api.answers[ROOMS]

    async def then_blocked(_: web.Request) -> web.Response:
        async with run.store.transaction() as transaction:
            until = datetime.now(UTC) + timedelta(hours=1)
            await transaction.execute(table_of(BudgetRow).update().values(blocked_until=until))
        return web.json_response(first)

    run.api.answers[ROOMS] = then_blocked
    await run.want(ROOMS)
    (target,) = await run.attempt()
    assert (target.answered, target.attempts, target.lease_owner) == (0, 0, None)
    async with run.store.transaction() as transaction:
        await transaction.execute(table_of(BudgetRow).update().values(blocked_until=None))
    await run.attempt()
    assert run.api.calls == [ROOMS, f"{ROOMS}?page=2"]


async def test_trouble_is_retried_in_one_place_and_not_for_ever(run: Bench) -> None:
    """T-API-5XX: a blip once more at once, all else after RETRY_DELAYS, parked after RETRY_FOR."""

    async def reset(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    calls = {500: 1, 504: 2, reset: 2, refusing(503, Retry_After="0"): 1}
    for number, (answer, asked) in enumerate(calls.items(), 1):
        path = f"/v1/locations/{number}"
        run.api.answers[path] = answer
        run.api.seen.clear()
        await run.want(path)
        targets = await run.attempt()
        assert run.api.calls == [path] * asked
        assert targets[-1].attempts == 1
        async with run.store.transaction() as transaction:
            await transaction.execute(table_of(TargetRow).update().values(attempts=10_000))
        targets = await run.attempt()
        assert targets[-1].answered > targets[-1].wanted
        assert await run.parked() == ["retries_exhausted"] * number


# --- tokens ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def renewing(run: Bench) -> AsyncIterator[list[int]]:
    """A token worker: renews the pair when it is due; gives the versions that it renewed."""
    renewed: list[int] = []

    async def renew() -> None:
        while True:
            (grant,) = await run.rows(GrantRow)
            if grant.refresh_at <= datetime.now(UTC):
                renewed.append(grant.rt_version)
                await run.authorise(f"access-{grant.rt_version + 1}", grant.rt_version + 1, refused=timedelta(0))
            await asyncio.sleep(0.02)

    task = asyncio.create_task(renew())
    try:
        yield renewed
    finally:
        task.cancel()


async def test_one_refresh_for_all_who_held_the_refused_token(run: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-API-401: and one more try each, with the new one."""
    monkeypatch.setattr(attempts, "GRANT_POLL", 0.05)
    paths = [f"/v1/locations/{number}" for number in range(6)]
    for path in paths:
        run.api.answers[path] = only_for("access-2", {"data": {"ID": 1}})
        await run.want(path)
    async with renewing(run) as renewed:
        targets = await run.attempt(6, together=True)
    assert renewed == [1]
    assert all(target.answered > target.wanted for target in targets)
    assert sorted(run.api.seen) == [(path, f"Bearer access-{token}") for path in paths for token in (1, 2)]


async def test_a_token_refused_in_the_middle_of_a_walk(run: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-API-401: the walk goes on with the new one."""
    monkeypatch.setattr(attempts, "GRANT_POLL", 0.05)
    run.api.answers = pages_of(ids(1), ids(2), path=ROOMS, base=run.api.base)
    second = f"{ROOMS}?page=2"
    run.api.answers[second] = only_for("access-2", run.api.answers[second])
    await run.want(ROOMS)
    async with renewing(run):
        await run.attempt()
    assert run.api.seen == [
        (ROOMS, "Bearer access-1"), (second, "Bearer access-1"), (second, "Bearer access-2"),
    ]  # fmt: skip
    assert run.published.ids() == ["1", "2"]


async def test_an_api_that_refuses_every_token_does_not_have_them_all_renewed(
    run: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-API-401, T-RT-401LOOP: the pair that came of the first refusal is not renewed over the second at once."""
    monkeypatch.setattr(attempts, "GRANT_POLL", 0.05)
    paths = [f"/v1/locations/{number}" for number in range(3)]
    for path in paths:
        run.api.answers[path] = 401
        await run.want(path)
    async with renewing(run) as renewed:
        for _ in range(3):
            targets = await run.attempt(3)
            assert all((target.answered, target.last_status) == (0, 401) for target in targets)
    assert renewed == [1]
    assert len(run.api.calls) == 3 * 2 + 2 * 3, "the refused one, the new one, then once each time"
    assert await run.parked() == []


@pytest.mark.parametrize(("ago", "renewed"), [(5, False), (15, True), (None, True)])
async def test_a_pair_is_renewed_over_a_401_unless_another_was_refused_a_moment_ago(
    run: Bench, ago: int | None, renewed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-API-401: as the store's clock goes; the age of the pair does not matter, Syncaroo may end it at any time."""
    monkeypatch.setattr(attempts, "GRANT_SECONDS", 0.0)
    await run.authorise("access-1", 1, refused=None if ago is None else timedelta(seconds=ago))
    run.api.answers[PLACE] = 401
    await run.want(PLACE)
    (target,) = await run.attempt()
    (grant,) = await run.rows(GrantRow)
    assert (grant.state, grant.refresh_at <= datetime.now(UTC)) == ("active", renewed)
    assert (target.attempts, target.lease_owner) == (0 if renewed else 1, None)


async def test_a_403_on_one_item_is_that_item_s_own(run: Bench) -> None:
    """T-API-REAUTH: it is parked; the grant and all others go on."""
    run.api.answers = {PLACE: 403, "/v1/locations/6": {"data": {"ID": 6}}}
    (before,) = await run.rows(GrantRow)
    await run.want(PLACE)
    await run.want("/v1/locations/6")
    await run.attempt(2)
    assert (await run.rows(GrantRow), await run.parked()) == ([before], ["refused"])
    assert run.published.ids() == ["6"]


async def test_without_authorisation_targets_wait_and_are_not_parked(
    run: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-API-REAUTH: they go on when a person has authorised us again."""
    monkeypatch.setattr(attempts, "GRANT_SECONDS", 0.0)
    run.api.answers[PLACE] = only_for("access-2", {"data": {"ID": 5}})
    await run.want(PLACE)
    await run.attempt()
    async with run.store.transaction() as transaction:
        await transaction.execute(table_of(GrantRow).update().values(state="needs_authorisation"))
    for _ in range(3):
        (target,) = await run.attempt()
        assert (target.answered, target.attempts) == (0, 0)
    assert len(run.api.calls) == 1
    await run.authorise("access-2", 2)
    (target,) = await run.attempt()
    assert target.answered > target.wanted
    assert await run.parked() == []


# --- 404 ------------------------------------------------------------------------------------------------------------


async def test_a_404_of_what_was_never_seen_may_be_too_early(run: Bench) -> None:
    """T-API-404: after the retries it is parked, when a webhook waits for it; a resync only asked. Either tells
    reconcile, to which an earlier answer about it may still be on its way."""
    await run.want(PLACE)
    for tried in (1, 2):
        (target,) = await run.attempt()
        assert (target.attempts, target.last_status, await run.parked()) == (tried, 404, [])
    await run.attempt()
    assert await run.parked() == ["not_found"]
    await run.want("/v1/locations/6", "resync")
    await run.attempt()
    assert (await run.parked(), len(run.api.calls)) == (["not_found"], 4)
    assert [type(one) for one in run.published.messages] == [ItemGone, ItemGone]


@pytest.mark.parametrize("status", [404, 410])
async def test_a_404_of_a_known_item_is_its_end_and_of_a_collection_a_doubt(run: Bench, status: int) -> None:
    """T-API-404: only the item's own URL says that it is gone."""
    item = f"{ROOMS}/7"
    run.api.answers = {item: status, ROOMS: status}
    await known(run, "7")
    await run.want(item)
    await run.attempt()
    (gone,) = run.published.messages
    assert isinstance(gone, ItemGone)
    assert (gone.source.status, gone.source.url) == (status, run.api.base + item)
    await run.want(ROOMS)
    await run.attempt()
    assert len(run.published.messages) == 1
    assert {row.url: row.wanted > row.answered for row in await run.rows(TargetRow)} == {
        run.api.base + item: True, run.api.base + ROOMS: False,
    }  # fmt: skip
