"""/console in a browser's hands: who may, what is told, what is done, and what when the store or the broker is away."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import ClientResponse, ClientSession, CookieJar
from sqlalchemy import func, select, update
from structlog.testing import capture_logs

from common.codec import loads
from common.ids import new_id
from common.store.events import append_events
from common.store.parked import Parked, park
from ingress.console.feed import KEPT_FOR_ONE, Listener, Standing
from ingress.console.rules import Choice
from ingress.console.stages import Surroundings
from ingress.documents import examples
from schemas.events import ListingChanged
from schemas.tables import EventRow, table_of
from tests.component.populated import LISTING, populate
from tests.component.served import Served
from tests.ingress_app import CONNECTION
from tests.waiting import until, within

TOKEN = "operator-of-the-tests"
_event = table_of(EventRow)
PAGES = ("", "/listings", f"/listings/{LISTING}", "/dead-letters", "/held")
ACTIONS = ("/replay", "/drop", "/held", "/resync")


class Operator:
    """A browser, signed in once `sign_in` was called."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.http = ClientSession(cookie_jar=CookieJar(unsafe=True))  # cookies of an address without a name
        self.csrf = ""

    async def __aenter__(self) -> Operator:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()

    async def get(self, path: str = "", **headers: str) -> tuple[int, str]:
        async with self.http.get(f"{self.served.url}/console{path}", headers=headers, allow_redirects=False) as answer:
            page = await answer.text()
            found = re.search(r'name="csrf" value="([^"]+)"', page)
            self.csrf = found[1] if found else self.csrf
            return answer.status, page

    async def post(self, path: str = "", *, headers: Any = None, **fields: str) -> ClientResponse:
        fields = {"csrf": self.csrf, **fields}
        url = f"{self.served.url}/console{path}"
        return await self.http.post(url, data=fields, headers=headers, allow_redirects=False)

    async def sign_in(self, token: str = TOKEN, **fields: str) -> ClientResponse:
        await self.get()
        answer = await self.post(password=token, **fields)
        await self.get()
        return answer

    async def told(self, path: str = "") -> str:
        """What the next page says of the last action."""
        page = (await self.get(path))[1]
        found = re.search(r'<p class="message [a-z]+" role="status">(.*?)</p>', page)
        return found[1] if found else ""


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with Served(database_url=database_url) as made:
        await populate(made.parts.store)
        yield made


@pytest.fixture
async def stranger(served: Served) -> AsyncIterator[Operator]:
    async with Operator(served) as made:
        yield made


@pytest.fixture
async def operator(stranger: Operator) -> Operator:
    await stranger.sign_in()
    return stranger


# --- who may --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_asks_who_is_there_and_leads_back_to_it(stranger: Operator, path: str) -> None:
    """T-AUTHZ."""
    status, page = await stranger.get(f"{path}?x=1")
    assert status == 200
    assert LISTING not in page.replace(f'value="/console{path}', "")
    visible = re.findall(r'<input(?![^>]*type="hidden")[^>]*>', page)
    assert len(visible) == 1
    assert 'type="password"' in visible[0]
    then = re.search(r'name="then" value="([^"]+)"', page)
    assert then
    assert then[1] == f"/console{path}?x=1"
    answer = await stranger.post(password=TOKEN, then=then[1])
    assert (answer.status, answer.headers["Location"]) == (303, then[1])
    assert (await stranger.get(path))[0] == 200


@pytest.mark.parametrize(
    "then", ["https://evil.test/", "//evil.test", "/consoles", "/console/\\evil", "", "/admin/v1/status"]
)
async def test_a_login_leads_nowhere_else(stranger: Operator, then: str) -> None:
    answer = await stranger.sign_in(then=then)
    assert (answer.status, answer.headers["Location"]) == (303, "/console")


@pytest.mark.parametrize("path", ACTIONS)
async def test_no_action_without_a_session(stranger: Operator, path: str) -> None:
    """T-AUTHZ."""
    await stranger.get()
    answer = await stranger.post(path, **await fields_of(stranger.served, path))
    assert answer.status == 401
    assert "Nothing was done" in await answer.text()
    await nothing_was_done(stranger.served)


@pytest.mark.parametrize("path", ACTIONS)
async def test_no_action_from_elsewhere_or_with_another_s_form(operator: Operator, path: str) -> None:
    """T-AUTHZ."""
    right = await fields_of(operator.served, path)
    for fields, headers in (
        ({"csrf": "wrong"}, {}),
        ({"csrf": ""}, {}),
        ({}, {"Origin": "http://evil.test"}),
        ({}, {"Sec-Fetch-Site": "cross-site"}),
    ):
        answer = await operator.post(path, headers=headers, **(right | fields))
        assert answer.status == 403, (fields, headers)
    await nothing_was_done(operator.served)
    assert (await operator.post(path, **right)).status in (200, 303), "it would have been done"


async def test_guesses_at_the_console_count_at_connect_too(stranger: Operator) -> None:
    for _ in range(5):
        assert (await stranger.sign_in("wrong")).status == 401
    assert (await stranger.sign_in()).status == 429
    async with stranger.http.post(f"{stranger.served.url}/connect", data={"password": TOKEN}) as answer:
        assert answer.status == 429


async def test_signed_out_nothing_is_shown(operator: Operator) -> None:
    assert LISTING in (await operator.get("/listings?q=99"))[1]
    assert (await operator.post("/sign-out")).status == 303
    assert LISTING not in (await operator.get("/listings?q=99"))[1]
    assert (await operator.get("/events"))[0] == 401


async def test_a_port_of_its_own_is_used_through_a_tunnel(database_url: str) -> None:
    """SITE_URI is https, the port is plain http on this host: the cookie goes by the request, forms come from there."""
    more: dict[str, Any] = {"site_uri": "https://gateway.test", "ops_port": 1, "database_url": database_url}
    async with Served(is_ops=True, **more) as served, Operator(served) as operator:
        await populate(served.parts.store)
        await operator.get()
        answer = await operator.post(password=TOKEN, headers={"Origin": served.url})
        assert (answer.status, answer.headers["Location"]) == (303, "/console")
        assert re.match("gateway-ops=[^;]+;(?!.*Secure).*HttpOnly.*SameSite=Lax", answer.headers["Set-Cookie"])
        assert (await operator.post(password=TOKEN, headers={"Origin": "https://gateway.test"})).status == 403
        assert "The flow" in (await operator.get())[1]


async def test_a_proxy_that_is_trusted_makes_the_cookie_secure(database_url: str) -> None:
    more: dict[str, Any] = {"trusted_proxies": "127.0.0.1/32", "ops_port": 1, "database_url": database_url}
    async with Served(is_ops=True, **more) as served, Operator(served) as operator:
        url, headers = f"{served.url}/console", {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
        async with operator.http.get(url, headers=headers) as answer:
            assert re.match("__Host-gateway-ops=.*Secure", answer.headers["Set-Cookie"])


# --- what is done ---------------------------------------------------------------------------------------------------

ALL: dict[str, str] = {"queue": "syncaroo.fetch", "reason": "bad_json"}
FIELDS: dict[str, dict[str, str]] = {
    "/replay": ALL,
    "/drop": {"sure": "yes"},
    "/held": {"connectionId": str(CONNECTION), "held": "1", "decision": "approve"},
    "/resync": {"connectionId": str(CONNECTION)},
}


async def fields_of(served: Served, path: str) -> dict[str, str]:
    """What does it at once: a letter is dropped by its id."""
    if path != "/drop":
        return FIELDS[path]
    return FIELDS[path] | {"id": (await admin(served, "dead-letters"))["items"][0]["id"]}


async def nothing_was_done(served: Served) -> None:
    assert served.broker.published == []
    status = await admin(served, "status")
    assert (status["parked"], status["held"], status["targets"]) == ({"bad_json": 1}, 1, {"due": 0})


async def admin(served: Served, path: str) -> Any:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with served.session.get(f"{served.url}/admin/v1/{path}", headers=headers) as answer:
        return loads(await answer.read())


async def letter_id(served: Served) -> str:
    return str((await admin(served, "dead-letters"))["items"][0]["id"])


async def test_one_is_replayed_once_with_an_audit_line(operator: Operator) -> None:
    letter = await letter_id(operator.served)
    with capture_logs() as logs:
        answers = [await operator.post("/replay", id=letter, back="front") for _ in range(2)]
    assert [(one.status, one.headers["Location"]) for one in answers] == [(303, "/console")] * 2
    [line] = [one for one in logs if one["event"] == "console.replayed"]
    assert (line["operator"], line["parked_id"], line["queue"], line["reason"]) == ("admin", letter, *ALL.values())
    assert TOKEN not in str(logs)
    assert [(one.routing_key, one.body) for one in operator.served.broker.published] == [("fetch.17", b"{}")]
    assert await operator.told() == "Nothing to be replayed: somebody else was quicker."


async def test_all_of_a_reason_are_replayed_and_no_other(operator: Operator) -> None:
    await more_letters(operator.served, 3)
    await operator.post("/replay", **ALL)
    assert await operator.told("/dead-letters") == "4 dead letters parked as bad_json were replayed."
    assert (await admin(operator.served, "status"))["parked"] == {"other": 1}


async def more_letters(served: Served, number: int) -> None:
    async with served.parts.store.transaction() as transaction:
        one = Parked("syncaroo.fetch", "bad_json", CONNECTION, "fetch.17", "WebhookReceived", b'{"token":"s3cret"}', 3)
        other = Parked("syncaroo.fetch", "other", CONNECTION, "fetch.17", "WebhookReceived", b"{}", 3)
        await park(transaction, [one] * number + [other])


async def seen(operator: Operator) -> str:
    """What the question whether one is sure gives back of the letters that it is about."""
    answer = await operator.post("/drop", **ALL)
    assert answer.status == 200
    found = re.search('name="seen" value="([^"]+)"', await answer.text())
    assert found
    return found[1]


async def test_dropping_asks_first_and_drops_what_was_seen(operator: Operator) -> None:
    one = await seen(operator)
    await nothing_was_done(operator.served)
    await more_letters(operator.served, 1)
    await operator.post("/drop", **ALL, sure="yes", seen=one)
    assert "Nothing was dropped" in await operator.told("/dead-letters")
    two = await seen(operator)
    with capture_logs() as logs:
        await operator.post("/drop", **ALL, sure="yes", seen=two)
        assert await operator.told("/dead-letters") == "2 dead letters parked as bad_json were dropped."
        await operator.post("/drop", **ALL, sure="yes", seen=two)
    assert [one["event"] for one in logs].count("console.dropped") == 2
    assert await operator.told("/dead-letters") == "Nothing to be dropped: somebody else was quicker."


async def test_as_many_letters_that_nobody_saw_are_kept(operator: Operator) -> None:
    one = await seen(operator)
    letters = (await admin(operator.served, "dead-letters"))["items"]
    await operator.post("/replay", id=letters[0]["id"])
    await more_letters(operator.served, 1)
    await operator.post("/drop", **ALL, sure="yes", seen=one)
    assert "Nothing was dropped" in await operator.told("/dead-letters")
    assert (await admin(operator.served, "status"))["parked"] == {"bad_json": 1, "other": 1}


async def test_a_letter_is_looked_into_without_its_secrets(operator: Operator) -> None:
    await more_letters(operator.served, 1)
    letters = (await admin(operator.served, "dead-letters"))["items"]
    [letter] = [one for one in letters if one["body"]]  # parked in one millisecond, they come in any order
    status, page = await operator.get(f"/dead-letters/{letter['id']}")
    assert status == 200
    assert "[sealed]" in page
    assert "s3cret" not in page
    assert (await operator.get("/dead-letters/none"))[0] == 404


@pytest.mark.parametrize("decision", ["approve", "discard"])
async def test_a_decision_is_about_what_was_seen_and_counts_once(operator: Operator, decision: str) -> None:
    fields = FIELDS["/held"] | {"decision": decision}
    await operator.post("/held", **(fields | {"held": "2"}))
    assert "1 listing of connection 99 held by now, not 2" in await operator.told("/held")
    with capture_logs() as logs:
        await operator.post("/held", **fields)
        assert (await operator.told("/held")).startswith("1 listing of connection 99: ")
        await operator.post("/held", **fields)
    assert [one["decision"] for one in logs if one["event"] == "console.decided"] == [decision]
    assert await operator.told("/held") == "Somebody else has decided meanwhile."
    assert (await admin(operator.served, "status"))["held"] == 0


async def test_a_connection_or_a_location_is_read_again(operator: Operator) -> None:
    with capture_logs() as logs:
        await operator.post("/resync", connectionId=str(CONNECTION))
    assert await operator.told() == "3 targets of connection 99 are read again."
    assert [one["operator"] for one in logs if one["event"] == "console.resynced"] == ["admin"]
    assert (await admin(operator.served, "status"))["targets"] == {"due": 3}
    await operator.post("/resync", connectionId=str(CONNECTION), locationId="none")
    assert "Nothing is known of location none" in await operator.told()
    assert (await operator.post("/resync", connectionId="98")).status == 404
    assert (await operator.post("/resync", connectionId="x")).status == 400


@pytest.mark.parametrize("asked", [LISTING, "99/resources/7843", "/v1/locations/12/resources/7843", "7843", "99"])
async def test_a_listing_is_found_by_each_of_its_names(operator: Operator, asked: str) -> None:
    assert f"/console/listings/{LISTING}" in (await operator.get(f"/listings?q={asked}"))[1]


async def test_a_story_tells_what_led_to_what(operator: Operator) -> None:
    status, page = await operator.get(f"/listings/{LISTING}")
    assert status == 200
    assert "A webhook came" in page
    assert "<del>10</del>" in page
    assert "<ins>12</ins>" in page
    assert (await operator.get("/listings/none"))[0] == 404
    assert "Nothing is known as <bdi>&lt;b&gt;</bdi>" in (await operator.get("/listings?q=<b>"))[1]


# --- what is told while it happens ----------------------------------------------------------------------------------


class Stream:
    """Server-sent events as they come."""

    def __init__(self, answer: ClientResponse) -> None:
        self.answer = answer

    async def next(self, kind: str) -> tuple[str, Any]:
        """The next one of a kind: its id and what it holds."""
        async with within(20):
            while True:
                message = (await self.answer.content.readuntil(b"\n\n")).decode()
                values = dict(line.partition(": ")[::2] for line in message.splitlines())
                if values.get("event") == kind:
                    return values.get("id", ""), loads(values["data"].encode())


async def listen(operator: Operator, query: str = "", **headers: str) -> Stream:
    url = f"{operator.served.url}/console/events{query}"
    answer = await operator.http.get(url, headers=headers, timeout=None)
    assert answer.status == 200, await answer.text()
    assert answer.content_type == "text/event-stream"
    return Stream(answer)


async def write_event(
    served: Served, version: int, position: int | None = None, connection_id: int = CONNECTION
) -> str:
    """The event's id."""
    event = msgspec.structs.replace(examples.EVENTS[ListingChanged], version=version, connection_id=connection_id)
    newest = _event.c.position == select(func.max(_event.c.position)).scalar_subquery()
    async with served.parts.store.transaction() as transaction:
        await append_events(transaction, [event])
        row = await transaction.row(select(_event.c.event_id).where(newest))
        if position is not None:
            await transaction.execute(update(_event).where(newest).values(position=position))
    assert row is not None
    return str(row.event_id)


async def test_what_happens_is_told_and_told_again_to_who_comes_back(operator: Operator) -> None:
    first = await listen(operator)
    seen = {(await first.next("event"))[1]["id"]}
    standing = (await first.next("standing"))[1]
    assert standing["store"] is True
    assert "The flow" in standing["html"]
    await write_event(operator.served, 3)
    mark, event = await first.next("event")
    assert event["id"] not in seen
    assert "<ins>12</ins>" in event["html"]
    first.answer.close()
    await write_event(operator.served, 4)
    again = await listen(operator, **{"Last-Event-ID": mark})
    ids = [(await again.next("event"))[1]["id"] for _ in range(3)]
    assert event["id"] in ids
    assert len(set(ids)) == 3
    again.answer.close()
    filtered = await listen(operator, "?connection=98&after=0")
    await write_event(operator.served, 5)
    other = await write_event(operator.served, 1, connection_id=98)
    assert (await filtered.next("event"))[1]["id"] == other, "of all these, the first that was asked for"
    filtered.answer.close()


async def test_streams_end_with_the_session_and_with_the_process(operator: Operator) -> None:
    stream = await listen(operator)
    await stream.next("standing")
    await operator.post("/sign-out")
    async with within(5):
        await stream.answer.read()
    await operator.sign_in()
    stream = await listen(operator)
    await stream.next("standing")
    async with within(5):
        await asyncio.gather(operator.served.listener.close(), stream.answer.read())


async def test_only_so_many_listen_and_nobody_looks_when_none_does(operator: Operator) -> None:
    streams = [await listen(operator) for _ in range(20)]
    assert any("_look_while_listened_to" in repr(task.get_coro()) for task in asyncio.all_tasks())
    status, page = await operator.get("/events")
    assert (status, "Too many consoles" in page) == (503, True)
    for stream in streams:
        stream.answer.close()

    async def there_is_room() -> bool:
        answer = await operator.http.get(f"{operator.served.url}/console/events")
        answer.close()
        return answer.status == 200

    await until(there_is_room, what="room for another one")

    def nobody_looks() -> bool:
        return not any("_look_while_listened_to" in repr(task.get_coro()) for task in asyncio.all_tasks())

    await until(nobody_looks)


async def test_what_commits_late_is_told_once(operator: Operator) -> None:
    """A lower position that appears after a higher one, as of two transactions the later began first."""
    store = operator.served.parts.store
    stream = await listen(operator)
    known = (await stream.next("event"))[1]["id"]
    async with store.transaction() as transaction:
        early = await transaction.number()
    await write_event(operator.served, 3)
    higher = (await stream.next("event"))[1]
    await write_event(operator.served, 4, position=early)
    late = (await stream.next("event"))[1]
    assert f'data-position="{early}"' in late["html"]
    assert len({known, higher["id"], late["id"]}) == 3
    following = await write_event(operator.served, 5)
    assert (await stream.next("event"))[1]["id"] == following, "nothing once more before it"
    stream.answer.close()


def test_who_is_too_far_behind_is_sent_off() -> None:
    listener = Listener(Choice(), "somebody")
    standing = Standing(None, Surroundings({}, None, True))
    for _ in range(KEPT_FOR_ONE + 1):
        listener.give(standing)
    assert listener.queue.get_nowait() is None
    assert listener.queue.empty()


# --- what is away ---------------------------------------------------------------------------------------------------


async def test_without_a_store_the_page_says_so_and_recovers(database_url: str, tmp_path: Any) -> None:
    nowhere = f"sqlite+aiosqlite:///{tmp_path}/none/gateway.db"
    async with Served(database_url=nowhere) as away, Operator(away) as operator:
        await operator.sign_in()
        status, page = await operator.get()
        assert (status, "The store does not answer" in page) == (503, True)
        for path in PAGES[1:]:
            status, page = await operator.get(path if "?" in path else f"{path}?q=99")
            assert (status, "The store does not answer" in page) == (503, True), path
        for path in ACTIONS:
            answer = await operator.post(path, **FIELDS[path], **({"id": new_id()} if path == "/drop" else {}))
            assert answer.status == 503, path
        stream = await listen(operator, "?after=0")
        told = (await stream.next("standing"))[1]
        assert told["store"] is False
        assert "The store does not answer" in told["html"]


async def test_without_a_broker_nothing_is_lost_and_the_page_says_so(operator: Operator) -> None:
    operator.served.broker.down = True
    assert "The message broker does not answer" in (await operator.get())[1]
    await operator.post("/replay", **ALL)
    assert await operator.told() == "The broker does not answer. 0 replayed, 1 kept."
    assert (await admin(operator.served, "status"))["parked"] == {"bad_json": 1}
    operator.served.broker.down = False
    assert "The message broker does not answer" not in (await operator.get())[1]
