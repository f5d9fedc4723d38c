"""Walks over pages, on both databases: every ending, every anomaly, and going on where another has stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.messages import ItemGone, PageFetched
from schemas.tables import AttemptRow, ListingRow, TargetRow, table_of
from tests.component.fetch_parts import Bench, Published, bench, pages_of
from tests.waiting import within
from workers.fetch import fetching, walking
from workers.fetch.store.outcomes import OutcomeStore
from workers.fetch.store.suspects import SuspectStore

ROOMS = "/v1/locations/5/resources"
ROOM = f"{ROOMS}/7"


@pytest.fixture(name="run")
async def _run(database_url: str) -> AsyncIterator[Bench]:
    async with bench(database_url) as made:
        yield made


def ids(*numbers: int) -> list[Any]:
    return [{"ID": number} for number in numbers]


def a_page(next_url: Any, *numbers: int, **pages: Any) -> dict[str, Any]:
    return {"data": ids(*numbers), "pages": {"count": 2, "current": 1, "next": next_url, **pages}}


async def known(run: Bench, item_id: str, path: str = ROOMS) -> None:
    """A listing that was seen before."""
    values = {
        "connection_id": 99, "listing_id": f"{path}/{item_id}", "scope": path, "item_id": item_id,
        "own_path": f"{path}/{item_id}", "own_url": f"{run.api.base}{path}/{item_id}", "attribute_type": "resources",
        "body": "{}", "written_by": "list", "version": 1, "began": 0, "ended": 0, "deleted": False,
    }  # fmt: skip
    async with run.store.transaction() as transaction:
        await transaction.execute(table_of(ListingRow).insert().values(values))


async def suspected(run: Bench) -> list[str]:
    """The items that are to be asked themselves."""
    return sorted(row.url.rpartition("/")[2] for row in await run.rows(TargetRow) if row.reason == "resync")


@pytest.mark.parametrize("end", [{"next": None}, {"next": ""}, {}], ids=["null", "empty", "absent"])
async def test_each_page_goes_to_reconcile_and_absence_makes_suspects(run: Bench, end: dict[str, Any]) -> None:
    """GUIDE-NOTES: the last page's `next` is null, empty or absent."""
    run.api.answers = pages_of(ids(1, 2), ids(3), ids(4), path=ROOMS, base=run.api.base)
    run.api.answers[f"{ROOMS}?page=3"]["pages"] = {"count": 3, "current": 3, **end}
    await known(run, "9")
    await run.want(ROOMS)

    (target, _) = await run.attempt()

    assert [(page.page, len(page.items), page.shape) for page in run.published.pages] == [
        (1, 2, "list"), (2, 1, "list"), (3, 1, "list"),
    ]  # fmt: skip
    numbers = [number for page in run.published.pages for number in (page.source.began, page.source.ended)]
    assert numbers == sorted(set(numbers)), "each page was asked between numbers of its own"
    assert (target.answered, target.last_status) == (numbers[0], 200)
    assert await suspected(run) == ["9"]


ODD: list[tuple[str, dict[str, Any], list[int]]] = [
    ("a loop", {"": a_page("{page}2", 1), "2": a_page("{page}2", 2, current=2)}, [1, 2]),
    ("back to the start", {"": a_page("{page}2", 1), "2": a_page("{url}", 2, current=2)}, [1, 2]),
    ("itself", {"": a_page("{url}", 1)}, [1]),
    ("two in turn", {"": a_page("{page}2", 1, count=9), "2": a_page("{page}3", 2, count=9, current=2),
                     "3": a_page("{page}2", 3, count=9, current=3)}, [1, 2, 3]),
    ("a count too high", {"": a_page(None, 1)}, [1]),
    ("a count too low", {"": a_page("{page}2", 1, count=1), "2": a_page(None, 2, count=1, current=2)}, [1, 2]),
    ("a count that changes", {"": a_page("{page}2", 1), "2": a_page(None, 2, count=3, current=2)}, [1, 2]),
    ("no count", {"": a_page(None, 1, count=None)}, [1]),
    ("a page left out", {"": a_page("{page}2", 1), "2": a_page(None, 2, current=3)}, [1, 2]),
    ("no pages", {"": {"data": ids(1)}}, [1]),
    ("pages of a wrong type", {"": {"data": ids(1), "pages": "1 of 1"}}, [1]),
    ("an item without an id", {"": {"data": [*ids(1), {}], "pages": {"count": 1, "current": 1}}}, [1]),
    ("a link that is none", {"": a_page(["x"], 1, count=1)}, [1]),
]  # fmt: skip


async def test_a_walk_with_anything_odd_ends_and_never_deletes(run: Bench) -> None:
    """T-PAGE-LOOP, T-PAGE-PARTIAL: what was seen counts, what was not seen is no sign of anything."""
    for number, (what, answers, found) in enumerate(ODD):
        path = f"/v1/locations/{number}/resources"
        for page, answer in answers.items():
            run.api.answers[f"{path}?page={page}" if page else path] = linked(answer, run.api.base + path)
        await known(run, "9", path)
        run.api.seen.clear()
        run.published.messages.clear()
        await run.want(path)

        targets = await run.attempt()

        assert run.published.ids() == [str(one) for one in found], what
        assert len(run.api.calls) == len(answers), f"{what}: it ends"
        assert all(target.answered > target.wanted for target in targets), what
        assert await suspected(run) == [], what


def linked(answer: dict[str, Any], url: str) -> dict[str, Any]:
    """The answer, its link led to where it is served."""
    pages = answer.get("pages")
    if not isinstance(pages, dict) or not isinstance(pages.get("next"), str):
        return answer
    return answer | {"pages": pages | {"next": pages["next"].format(url=url, page=f"{url}?page=")}}


async def test_duplicates_and_an_empty_list_are_nothing_odd(run: Bench) -> None:
    """An item that moved is seen twice; a collection of which nothing is left may count no page."""
    run.api.answers = pages_of(ids(1, 2), ids(2, 3), path=ROOMS, base=run.api.base)
    other = "/v1/locations/6/resources"
    run.api.answers[other] = {"data": [], "pages": {"count": 0, "current": 1, "next": None}}
    await known(run, "8")
    await known(run, "9", other)
    await run.want(ROOMS)
    await run.want(other)
    await run.attempt(2)
    assert await suspected(run) == ["8", "9"]


async def test_the_next_link_is_called_byte_for_byte_and_a_relative_one_where_it_stands(run: Bench) -> None:
    """T-URL-NEXT."""
    odd = f"{ROOMS}?cursor=a%2Fb%3d&x=%C3%A9&y=a+b//"
    run.api.answers = {
        ROOMS: a_page(run.api.base + odd, 1, count=3),
        odd: a_page("?page=3", 2, count=3, current=2),
        f"{ROOMS}?page=3": a_page(None, 3, count=3, current=3),
    }
    await run.want(ROOMS)
    await run.attempt()
    assert run.api.seen == [(path, "Bearer access-1") for path in (ROOMS, odd, f"{ROOMS}?page=3")]


FOREIGN = [
    "{evil}/v1/locations/5/resources?page=2",
    "//{evil_host}/v1/locations",
    "http://{host}@{evil_host}/",
    "http://u:p@{host}/v1",
    "http://{host}.evil.test/v1",
    "http://{host}1/v1",
    "ftp://{host}/v1",
    "http://{evil_host}\\@{host}/v1",
    "http://{host}\t/v1",
    "http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3/v1",
    "javascript:alert(1)",
    "//[evil",
]


async def test_a_foreign_next_link_is_parked_and_nothing_is_sent_there(run: Bench) -> None:
    """T-URL-NEXT: what came before it counts; the token stays where it may be."""
    for number, link in enumerate(FOREIGN):
        path = f"/v1/locations/{number}/resources"
        run.api.answers |= pages_of(ids(1), ids(2), ids(3), path=path, base=run.api.base)
        foreign = link.format(evil=run.evil.base, evil_host=run.evil.host, host=run.api.host)
        run.api.answers[path if number % 2 else f"{path}?page=2"]["pages"]["next"] = foreign
        run.published.messages.clear()
        await run.want(path)

        targets = await run.attempt()

        assert await run.parked() == ["forbidden_host"] * (number + 1), link
        assert all(target.answered > target.wanted for target in targets), link
        assert run.published.ids() == (["1"] if number % 2 else ["1", "2"]), link
        assert run.evil.seen == [], link
    assert len(run.api.calls) == 1.5 * len(FOREIGN)


async def test_a_page_that_fails_is_asked_again_and_those_before_it_are_not(run: Bench) -> None:
    """T-PAGE-PARTIAL: page 3 of 5 fails; the walk goes on from there, and is complete."""
    run.api.answers = pages_of(*[ids(number) for number in range(1, 6)], path=ROOMS, base=run.api.base)
    third = f"{ROOMS}?page=3"
    run.api.answers[third] = [500, run.api.answers[third]]
    await known(run, "9")
    await run.want(ROOMS)

    (target,) = await run.attempt()
    assert (target.attempts, target.last_status, target.answered) == (1, 500, 0)
    assert (run.published.ids(), await suspected(run)) == (["1", "2"], [])
    (target, _) = await run.attempt()

    assert run.published.ids() == ["1", "2", "3", "4", "5"]
    assert run.api.calls == [ROOMS, f"{ROOMS}?page=2", third, third, f"{ROOMS}?page=4", f"{ROOMS}?page=5"]
    first, second = run.published.pages[0].source.began, run.published.pages[2].source.began
    assert (target.answered, target.attempts, target.walk) == (first, 0, None)
    assert first < second, "the pages after the failure were asked later, and say so"
    assert await suspected(run) == ["9"]


async def test_a_webhook_meanwhile_makes_the_walk_begin_again(run: Bench) -> None:
    run.api.answers = pages_of(ids(1), ids(2), path=ROOMS, base=run.api.base)
    second = f"{ROOMS}?page=2"
    run.api.answers[second] = [500, run.api.answers[second]]
    await run.want(ROOMS)
    await run.attempt()
    await run.want(ROOMS)
    (target,) = await run.attempt()
    assert run.api.calls == [ROOMS, second, ROOMS, second]
    assert target.answered > target.wanted


async def test_a_worker_that_dies_between_pages_loses_nothing(run: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had confirmed is kept with the call for the next page: at most two seconds of it are asked again."""
    monkeypatch.setattr(walking, "KEEP_SECONDS", 0.0)
    run.api.answers = pages_of(ids(1), ids(2), ids(3), path=ROOMS, base=run.api.base)
    third = f"{ROOMS}?page=3"
    whole = run.api.answers[third]

    class Died(BaseException):
        """Nothing of ours catches it."""

    async def die(_: Any) -> Any:
        raise Died

    await known(run, "9")
    await run.want(ROOMS)
    original = run.client.get

    async def get(url: str, token: str) -> Any:
        return await (die(url) if url.endswith("page=3") else original(url, token))

    with monkeypatch.context() as patch:
        patch.setattr(run.client, "get", get)
        with pytest.raises(Died):
            await run.attempt()
    run.api.answers[third] = whole

    (target, _) = await run.attempt()

    assert run.api.calls == [ROOMS, f"{ROOMS}?page=2", third]
    assert target.answered == run.published.pages[0].source.began
    assert await suspected(run) == ["9"]


async def test_a_cursor_that_has_run_out_begins_the_walk_again(run: Bench) -> None:
    """A later page's 404 says nothing of the collection itself."""
    run.api.answers = pages_of(ids(1), ids(2), path=ROOMS, base=run.api.base)
    second = f"{ROOMS}?page=2"
    run.api.answers[second] = [500, 404, run.api.answers[second]]
    await known(run, "9")
    await run.want(ROOMS)
    await run.attempt()

    (target, _) = await run.attempt()

    assert run.api.calls == [ROOMS, second, second, ROOMS, second]
    old, new, _ = (page.source.began for page in run.published.pages)
    assert old < target.answered < new, "of the walk that counts"
    assert await suspected(run) == ["9"]
    assert not any(isinstance(one, ItemGone) for one in run.published.messages)


async def test_a_page_that_is_refused_for_good_is_parked_and_deletes_nothing(run: Bench) -> None:
    run.api.answers = pages_of(ids(1), ids(2), path=ROOMS, base=run.api.base)
    run.api.answers[f"{ROOMS}?page=2"] = 404
    await known(run, "9")
    await run.want(ROOMS)
    await run.attempt()
    assert await run.parked() == ["page_refused"]
    assert run.api.calls == [ROOMS, f"{ROOMS}?page=2"] * 2
    assert await suspected(run) == []


@pytest.mark.parametrize("age", [timedelta(minutes=11), timedelta(minutes=-1)], ids=["old", "of the future"])
async def test_a_walk_of_another_time_begins_again(run: Bench, age: timedelta) -> None:
    """One of the future was kept before the store's clock was put back: nobody knows how old it is."""
    run.api.answers = pages_of(ids(1), ids(2), path=ROOMS, base=run.api.base)
    second = f"{ROOMS}?page=2"
    run.api.answers[second] = [500, run.api.answers[second]]
    await run.want(ROOMS)
    await run.attempt()
    async with run.store.transaction() as transaction:
        await transaction.execute(table_of(TargetRow).update().values(walk_at=datetime.now(UTC) - age))
    await run.attempt()
    assert run.api.calls == [ROOMS, second, ROOMS, second]


async def test_the_walk_of_an_earlier_version_leads_nowhere_else(run: Bench) -> None:
    """CONTRACT §5.5 holds for kept links too."""
    run.api.answers = pages_of(ids(1), ids(2), path=ROOMS, base=run.api.base)
    second = f"{ROOMS}?page=2"
    run.api.answers[second] = [500, run.api.answers[second]]
    await run.want(ROOMS)
    (target,) = await run.attempt()
    async with run.store.transaction() as transaction:
        evil = target.walk.replace(run.api.base, run.evil.base)
        assert evil != target.walk
        await transaction.execute(table_of(TargetRow).update().values(walk=evil))
    await run.attempt()
    assert (await run.parked(), run.evil.seen) == (["forbidden_host"], [])


async def test_a_list_without_ids_is_told_whole_or_not_at_all(run: Bench) -> None:
    """T-PAGE-PARTIAL: half of an availability is no availability; its walk is not kept."""
    path = f"{ROOM}/availability"
    run.api.answers = pages_of([{"start": "a"}], [{"start": "b"}], path=path, base=run.api.base)
    second = f"{path}?page=2"
    run.api.answers[second] = [500, run.api.answers[second]]
    await run.want(path)
    (target,) = await run.attempt()
    assert (run.published.messages, target.walk) == ([], None)
    await run.attempt()
    assert run.api.calls == [path, second, path, second]
    (page,) = run.published.pages
    assert (page.shape, page.items) == ("whole", [{"start": "a"}, {"start": "b"}])
    assert page.source.began < page.source.ended


async def test_what_is_too_large_for_a_message_is_refused(run: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-FR-BIG: RabbitMQ 4 takes 16 MiB; a larger message would close the channel, again and again."""
    monkeypatch.setattr(walking, "MAX_BODY", 2000)
    for path, item in ((ROOM, {"ID": 7}), (ROOMS, {"ID": 7}), (f"{ROOM}/availability", {})):
        for size in (1000, 3000):
            run.api.answers[path] = {"data": [item | {"text": "x" * size}], "pages": {"count": 1, "current": 1}}
            await run.want(path)
            assert all(target.answered > target.wanted for target in await run.attempt())
    assert await run.parked() == ["too_large"] * 3
    assert [page.shape for page in run.published.pages] == ["item", "list", "whole"]


async def test_a_page_that_the_broker_did_not_confirm_is_asked_again(run: Bench) -> None:
    """T-FR-CONFIRM: not answered before the confirm; it is not the target's fault."""
    run.api.answers = pages_of(ids(1), ids(2), path=ROOMS, base=run.api.base)
    run.published.refused = {1, 2}
    await run.want(ROOMS)
    for _ in range(2):
        (target,) = await run.attempt()
        assert (target.answered, target.attempts, target.lease_owner) == (0, 0, None)
    (target,) = await run.attempt()
    assert target.answered == run.published.pages[0].source.began
    second = f"{ROOMS}?page=2"
    assert run.api.calls == [ROOMS, second, second, second]
    assert run.published.ids() == ["1", "2"]


async def test_the_end_of_an_item_that_the_broker_did_not_confirm_is_told_again(run: Bench) -> None:
    """T-FR-CONFIRM: the fetcher outlives it."""
    await known(run, "7")
    run.published.refused = {0}
    await run.want(ROOM)
    (target,) = await run.attempt()
    assert (target.answered, target.attempts, target.lease_owner) == (0, 0, None)
    await run.attempt()
    assert [type(one) for one in run.published.messages] == [ItemGone]


@pytest.mark.parametrize(
    ("path", "hanging", "call"),
    [(ROOMS, SuspectStore, "judge"), (ROOMS, OutcomeStore, "answered"), (f"{ROOM}/availability", Published, "publish")],
)
async def test_what_hangs_after_the_last_page_is_given_up(
    run: Bench, monkeypatch: pytest.MonkeyPatch, path: str, hanging: type[Any], call: str
) -> None:
    """T-HANG"""
    for module in (walking, fetching):
        monkeypatch.setattr(module, "PAGE_SECONDS", 1.0)
    monkeypatch.setattr(hanging, call, _hang)
    run.api.answers = pages_of(ids(1) if path == ROOMS else [{"start": "a"}], path=path, base=run.api.base)
    await run.want(path)
    async with within(10):
        (target,) = await run.attempt()
    assert (target.answered, target.attempts, target.lease_owner) == (0, 1, None)


async def test_a_claim_whose_end_cannot_be_written_is_let_go(run: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-HANG: its lease runs out."""
    monkeypatch.setattr(fetching, "PAGE_SECONDS", 1.0)
    monkeypatch.setattr(OutcomeStore, "put_off", _hang)
    run.api.answers = {ROOMS: 500}
    await run.want(ROOMS)
    with pytest.raises(TimeoutError):
        async with within(10):
            await run.attempt()


async def _hang(*_: object, **__: object) -> None:
    await asyncio.Event().wait()


async def test_a_walk_leaves_its_story(run: Bench) -> None:
    run.api.answers = pages_of(ids(1), ids(2), path=ROOMS, base=run.api.base)
    run.api.answers[ROOMS]["pages"]["current"] = 5
    await run.want(ROOMS)
    await run.attempt()
    (attempt,) = await run.rows(AttemptRow)
    assert (attempt.outcome, attempt.pages, attempt.detail) == (
        "answered", 2, "page numbers do not follow each other",
    )  # fmt: skip
    assert isinstance(run.published.messages[0], PageFetched)
