"""Each fault that the stand-in can be ordered to commit, seen from the side that suffers it."""

import time
from collections.abc import AsyncIterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest
from pytest_aiohttp import AiohttpServer

from sandbox import hashing
from sandbox.driver import DriverError
from sandbox.faults import KINDS, Fault, Faults
from tests.component.sandbox_parts import Stand, Start, refresh_form, stands
from tests.waiting import until

BROKEN = (aiohttp.ClientError, ConnectionError)
WHOLE = {"tokenType", "expiresIn", "accessToken", "refreshToken"}


@pytest.fixture
async def start(aiohttp_server: AiohttpServer) -> AsyncIterator[Start]:
    async with stands(aiohttp_server) as starting:
        yield starting


async def walking(start: Start, **chosen: Any) -> tuple[Stand, str, str]:
    """A stand-in whose locations fill five pages; the list's URL; a live token."""
    stand = await start(locations=5, page_size=1, **chosen)
    return stand, f"{stand.url}/v1/locations", (await stand.exchange())["accessToken"]


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
async def test_page_three_of_five_fails_once(start: Start, status: int) -> None:
    stand, url, token = await walking(start)
    await stand.driver.fault("api_status", status=status, page=3)
    with pytest.raises(AssertionError):
        await stand.walk(url, token)
    assert (await stand.driver.records()).calls[-1].status == status
    assert len(await stand.walk(url, token)) == 5


async def test_retry_after_in_seconds_and_as_a_date(start: Start) -> None:
    stand, url, token = await walking(start)
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    for as_date in (False, True):
        await stand.driver.fault("api_status", status=429, retry_after=7, as_date=as_date)
    async with stand.http.get(url, headers=headers) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    async with stand.http.get(url, headers=headers) as answer:
        assert 4 <= parsedate_to_datetime(answer.headers["Retry-After"]).timestamp() - time.time() <= 8


@pytest.mark.parametrize(
    ("value", "shown"),
    [("null", None), ("empty", ""), ("absent", "absent"), ("repeated", "?page=2&"), ("loop", "/v1/locations")],
)
async def test_next_is_bent(start: Start, value: str, shown: str | None) -> None:
    stand, url, token = await walking(start)
    await stand.driver.fault("api_next", value=value, page=2)
    _, first = await stand.get(url, token)
    _, second = await stand.get(first["pages"]["next"], token)
    bent = second["pages"].get("next", "absent")
    assert bent == shown if not shown or value == "absent" else shown in bent


async def test_a_token_that_follows_to_a_foreign_host_is_seen(start: Start) -> None:
    stand, url, token = await walking(start)
    await stand.driver.fault("api_next", value="foreign")
    _, page = await stand.get(url, token)
    await stand.get(page["pages"]["next"], token)
    assert [v.kind for v in (await stand.driver.records()).violations] == ["foreign_host"]


async def test_redirect_to_a_foreign_host(start: Start) -> None:
    stand, url, token = await walking(start)
    await stand.driver.fault("api_redirect", url="http://evil.test/")
    assert (await stand.get(url, token))[0] == 302


async def test_lying_count_and_no_pages(start: Start) -> None:
    stand, url, token = await walking(start)
    await stand.driver.fault("api_count", value="3")
    assert (await stand.get(url, token))[1]["pages"]["count"] == 8
    await stand.driver.fault("api_no_pages")
    assert list((await stand.get(url, token))[1]) == ["data"]


@pytest.mark.parametrize("kind", ["api_reset", "api_truncate"])
async def test_broken_connections(start: Start, kind: str) -> None:
    stand, url, token = await walking(start)
    await stand.driver.fault(kind, count=2)  # aiohttp itself asks again when a connection it had kept is reset
    with pytest.raises(BROKEN):
        await stand.get(url, token)
    await stand.driver.clear_faults()
    assert (await stand.get(url, token))[0] == 200
    assert {call.fault for call in (await stand.driver.records()).calls} == {kind, ""}


@pytest.mark.parametrize("kind", ["api_html", "token_html"])
async def test_html_for_json(start: Start, kind: str) -> None:
    stand, url, token = await walking(start)
    await stand.driver.fault(kind)
    with pytest.raises((ValueError, aiohttp.ContentTypeError)):
        await (stand.get(url, token) if kind == "api_html" else stand.exchange())


async def test_an_item_moves_between_pages_during_a_walk(start: Start) -> None:
    stand, url, token = await walking(start)
    await stand.driver.fault("api_move", page=1)
    ids = [item["ID"] for item in await stand.walk(url, token)]
    assert len(ids) == 5
    assert len(set(ids)) == 4, "one was seen twice, one never"


async def test_slow_answers_show_what_was_true_when_asked(start: Start) -> None:
    stand, url, token = await walking(start)
    item = (await stand.driver.world()).collections[url][0]
    await stand.driver.fault("api_slow", seconds=0.2, match=item)
    began = time.monotonic()
    assert (await stand.get(item, token))[0] == 200
    assert time.monotonic() - began >= 0.2


async def test_the_api_lags_behind_its_webhook(start: Start) -> None:
    stand, url, token = await walking(start, first_burst=False)
    await stand.confirmed()
    item = (await stand.driver.world()).collections[url][0]
    await stand.driver.fault("api_lag", seconds=0.3)
    await stand.driver.change("rename", item, value="New")
    assert stand.platform.webhooks[-1][1]["metaData"]["apiUrl"] == item

    async def shown() -> str:
        return str((await stand.get(item, token))[1]["data"][0]["Name"])

    assert await shown() != "New"
    await until(lambda: _equals(shown, "New"))


async def test_an_answer_shows_what_was_true_a_while_ago(start: Start) -> None:
    stand, url, token = await walking(start)
    item = (await stand.driver.world()).collections[url][0]
    await stand.driver.change("rename", item, value="New", webhook=False)

    async def shown() -> str:
        return str((await stand.get(item, token))[1]["data"][0]["Name"])

    await stand.driver.fault("api_stale", seconds=9, count=None)
    assert {await shown() for _ in range(8)} != {"New"}
    await stand.driver.clear_faults()
    assert await shown() == "New"


# tokens


async def test_a_lifetime_may_be_any_text_in_a_pair_that_is_whole(start: Start) -> None:
    stand = await start()
    first = await stand.exchange()
    await stand.driver.fault("token_lifetime", value="soon")
    status, answer = await stand.post_token(refresh_form(stand.config, first["refreshToken"]))
    assert (status, answer["expiresIn"]) == (200, "soon")
    status, answer = await stand.post_token(refresh_form(stand.config, answer["refreshToken"]))
    assert (status, answer["expiresIn"]) == (200, stand.config.token_seconds)


@pytest.mark.parametrize(
    ("fault", "answer", "used_up", "outcome"),
    [
        ({"kind": "token_drop"}, aiohttp.ClientConnectionError, True, "dropped"),
        ({"kind": "token_drop", "consume": False}, aiohttp.ClientConnectionError, False, "dropped"),
        ({"kind": "token_status", "status": 503}, (503, {"error"}), False, "failed"),
        ({"kind": "token_status", "status": 503, "consume": True}, (503, {"error"}), True, "issued"),
        ({"kind": "token_missing"}, (200, WHOLE - {"refreshToken"}), True, "issued"),
        ({"kind": "token_missing", "value": "expiresIn"}, (200, WHOLE - {"expiresIn"}), True, "issued"),
        ({"kind": "token_html"}, aiohttp.ContentTypeError, True, "issued"),
        ({"kind": "token_used"}, (400, {"error"}), False, "invalid_grant"),
    ],
)
async def test_token_faults(
    start: Start, fault: dict[str, Any], answer: tuple[int, set[str]] | type[Exception], used_up: bool, outcome: str
) -> None:
    stand = await start()
    form = refresh_form(stand.config, (await stand.exchange())["refreshToken"])
    await stand.driver.fault(**fault)
    if isinstance(answer, tuple):
        status, members = await stand.post_token(form)
        assert (status, set(members)) == answer
    else:
        with pytest.raises(answer):
            await stand.post_token(form)
    assert (await stand.post_token(form))[0] == (400 if used_up else 200)
    records = await stand.driver.records()
    assert [token.outcome for token in records.tokens[1:]] == [outcome, "reused_after_drop" if used_up else "issued"]
    assert records.violations == [], "its outcome was not known, so asking again is no mistake"


async def test_slow_token_requests_overlap_in_the_records(start: Start) -> None:
    stand = await start()
    form = refresh_form(stand.config, (await stand.exchange())["refreshToken"])
    await stand.driver.fault("token_slow", seconds=0.1)
    assert (await stand.post_token(form))[0] == 200
    slow = (await stand.driver.records()).tokens[-1]
    assert (slow.ended_at or 0) - slow.began_at >= 0.1


async def test_revoked_refresh_tokens(start: Start) -> None:
    stand = await start()
    form = refresh_form(stand.config, (await stand.exchange())["refreshToken"])
    await stand.driver.revoke_refresh()
    assert await stand.post_token(form) == (400, {"error": "invalid_grant"})


# webhooks


@pytest.mark.parametrize(("kind", "sent"), [("webhook_lost", 0), ("webhook_double", 2), ("webhook_reorder", 0)])
async def test_how_often_a_webhook_travels(start: Start, kind: str, sent: int) -> None:
    stand = await start(first_burst=False)
    await stand.confirmed()
    await stand.driver.fault(kind)
    await stand.driver.change("rename")
    assert len(stand.platform.webhooks) == sent


async def test_reordered_webhooks_arrive_after_the_next_one(start: Start) -> None:
    stand = await start(first_burst=False)
    await stand.confirmed()
    connection = (await stand.driver.connections())[99]
    first, second = (f"{stand.url}/v1/locations/{ident}" for ident in list(connection.locations)[:2])
    await stand.driver.fault("webhook_reorder", match=first)
    await stand.driver.change("rename", first)
    await stand.driver.change("rename", second)
    assert [body["metaData"]["apiUrl"] for _, body in stand.platform.webhooks] == [second, first]


async def test_spoilt_webhooks(start: Start) -> None:
    stand = await start(first_burst=False)
    await stand.confirmed()
    for kind in ("webhook_wrong_hash", "webhook_no_hash", "webhook_bad_token", "webhook_api_url"):
        await stand.driver.fault(kind)
        await stand.driver.change("rename")
    wrong, none, token, url = stand.platform.webhooks
    good = hashing.digest(
        {n: v for n, v in wrong[1].items() if n != "hash"}, "hmac-sha256:sorted:hex", "platform-secret"
    )
    assert wrong[1]["hash"] != good
    assert "hash" not in none[1]
    assert token[0]["Authorization"] == "Bearer not-a-token"
    access = (await stand.exchange())["accessToken"]
    assert (await stand.get(url[1]["metaData"]["apiUrl"], access))[0] == 404


async def test_a_webhook_before_check_connection(start: Start) -> None:
    stand = await start(first_burst=False)
    await stand.driver.fault("early_webhook")
    await stand.confirmed()
    assert stand.platform.order == ["token", "webhook", "check"]


# orders


async def test_orders_are_counted_and_can_be_withdrawn(start: Start) -> None:
    stand, url, token = await walking(start)
    await stand.driver.fault("api_status", status=503, count=2)
    await stand.driver.fault("api_html", count=None)
    assert [(await stand.get(url, token))[0] for _ in range(2)] == [503, 503]
    assert [fault.kind for fault in await stand.driver.faults()] == ["api_html"]
    await stand.driver.clear_faults()
    assert (await stand.get(url, token))[0] == 200


async def test_probability_is_seeded(start: Start) -> None:
    stand, url, token = await walking(start)
    await stand.driver.fault("api_status", status=503, count=None, probability=0.5)
    answers = [(await stand.get(url, token))[0] for _ in range(30)]
    assert {200, 503} == set(answers)


@pytest.mark.parametrize(
    "body", [{"kind": "nonsense"}, {"kind": "api_next", "value": "odd"}, {"kind": "api_slow", "x": 1}]
)
async def test_unknown_orders_are_refused(start: Start, body: dict[str, Any]) -> None:
    stand = await start()
    async with stand.http.post(f"{stand.url}/_sandbox/faults", json=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]


async def test_changes_that_do_not_fit_are_refused(start: Start) -> None:
    stand = await start()
    for kind, url in (("price", f"{stand.url}/v1/locations/1"), ("nonsense", None)):
        with pytest.raises(DriverError, match="400"):
            await stand.driver.change(kind, url)


def test_which_webhooks_are_lost_does_not_depend_on_the_calls() -> None:
    def lost(calls: int) -> list[bool]:
        faults = Faults(7)
        faults.order(Fault(kind="webhook_lost", probability=0.5, count=None))
        faults.order(Fault(kind="api_status", probability=0.5, count=None))
        found = []
        for _ in range(50):
            found.append(faults.take("webhook_lost") is not None)
            for _ in range(calls):
                faults.take("api_status")
        return found

    assert lost(0) == lost(3)
    assert 5 < sum(lost(0)) < 45


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_every_kind_of_fault_strikes(start: Start, kind: str) -> None:
    """Somewhere in a little of everything; what it does then is told above."""
    stand = await start(first_burst=False)
    pair = await stand.exchange()
    await stand.driver.fault(kind, **({"value": "null"} if kind.endswith("_next") else {}))
    with suppress(*BROKEN):
        await stand.post_token(refresh_form(stand.config, pair["refreshToken"]))
    with suppress(*BROKEN, ValueError):
        await stand.get(f"{stand.url}/v1/locations", pair["accessToken"])
    await stand.confirmed()
    await stand.driver.change("rename")
    assert await stand.driver.faults() == [], "it is used up"


def test_every_kind_of_fault_is_told_of() -> None:
    """A new fault needs its row in this file."""
    with open(__file__, encoding="utf-8") as source:
        text = source.read()
    assert [kind for kind in sorted(KINDS) if f'"{kind}"' not in text] == []


async def _equals(shown: Any, wanted: str) -> bool:
    return bool(await shown() == wanted)
