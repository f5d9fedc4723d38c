"""Our way to Syncaroo's tokens when a neighbour is away, or answers oddly: one pair stays live, or a person is called.

Like `test_grant`: it all happens once, in `played`, on gateways side by side; the tests look at what came of it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio

from ops.children import free_port
from ops.prove.proxy import Mode, Proxy
from tests.acceptance.test_grant import (
    CONNECTION,
    SECONDS,
    Played,
    alone,
    calls_for_a_person,
    compare,
    evidence,
    issued,
    lock,
    make_due,
    renewed,
    retire,
)
from tests.acceptance.world import Admin, Place, World, answers, selected, world
from tests.fixtures.broker import Vhosts
from tests.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

REFUSALS = (500, 503, 429, 400, 404)
SPOILT = ("token_html", "token_missing refreshToken", "token_missing accessToken")
ODD_LIFETIMES = ("token_missing expiresIn", "token_lifetime soon", "token_lifetime -1")
NOT_SENT, NO_VERDICT, HALF, LIFETIME = "not sent", "no verdict", "half an answer", "odd lifetime"
LOOP, FIXED, BROKER, STORE = "401 loop", "lying host", "broker down", "store down"
RENEW_AGAIN = 10.0
"""So many seconds after a token was refused, another's refusal has it renewed again (CONTRACT §5)."""
EVIL = {"Host": "evil.test", "X-Forwarded-Host": "evil.test", "Forwarded": "host=evil.test"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def played(request: pytest.FixtureRequest, directory: Path, vhosts: Vhosts) -> Played:
    """Everything that the selected tests want to happen, has."""
    run, wanted = Played(), selected(request, "play")
    stages: list[tuple[set[str], Callable[[Played, set[str], Place], Awaitable[None]]]] = [
        ({NO_VERDICT, NOT_SENT}, _answers),
        ({LIFETIME, HALF}, _answers),
        ({FIXED, STORE}, _callbacks),
        ({BROKER}, _callbacks),
        ({LOOP}, _loop),
    ]
    stages = [stage for stage in stages if stage[0] & wanted]
    pool = [vhosts.take() for _ in stages]
    await asyncio.gather(
        *(
            play(run, names & wanted, Place(directory / str(number), pool[number].url))
            for number, (names, play) in enumerate(stages)
        )
    )
    for vhost in pool:
        vhosts.give_back(vhost)
    return run


# --- what Syncaroo answers


async def _answers(run: Played, wanted: set[str], place: Place) -> None:
    with run.play(*wanted):
        async with alone(place, settings={"RETRY_DELAYS": "100ms"}) as made:
            await made.authorise(SECONDS)
            for name, play in (
                (NO_VERDICT, _no_verdict),
                (LIFETIME, _odd_lifetimes),
                (HALF, _half_answers),
                (NOT_SENT, _not_sent),
            ):
                if name in wanted:
                    with run.play(name):
                        await play(made, place)


async def _no_verdict(made: World, place: Place) -> None:
    """Whatever is no pair and no `invalid_grant` says nothing about the token: it is presented until there is one."""
    before, calls = await evidence(made), calls_for_a_person(place)
    order = (await made.sandbox.records()).order
    for status in REFUSALS:
        await made.sandbox.fault("token_status", status=status)
    make_due(place)
    await until(partial(issued, made, order), SECONDS, what="a pair in the end")
    assert await _outcomes(made, order) == [*["failed"] * len(REFUSALS), "issued"]
    await until(made.has_grant, SECONDS, what="the grant")
    assert calls_for_a_person(place) == calls
    compare(before, await evidence(made), again=False)


async def _odd_lifetimes(made: World, place: Place) -> None:
    """The pair is the only one that there is: it is kept, for the documented ten minutes."""
    before, calls = await evidence(made), calls_for_a_person(place)
    for lifetime in ODD_LIFETIMES:
        kind, _, value = lifetime.partition(" ")
        version = _row(place)["rt_version"]
        await made.sandbox.fault(kind, value=value)
        make_due(place)
        await until(partial(_is_newer, place, version), SECONDS, what=lifetime)
        assert await made.sandbox.faults() == []
        assert 170 < _seconds_between(place, "refresh_at", "expires_at") < 245, "renewed at 60 to 70 % of ten minutes"
    await renewed(made, partial(make_due, place))
    assert calls_for_a_person(place) == calls
    compare(before, await evidence(made), again=False)


async def _half_answers(made: World, place: Place) -> None:
    """The token is used up and there is nothing to keep: one call for a person each, who authorises again."""
    for spoilt in SPOILT:
        kind, _, value = spoilt.partition(" ")
        calls, sealed = calls_for_a_person(place), _row(place)["sealed_pair"]
        order = (await made.sandbox.records()).order
        await made.sandbox.fault(kind, value=value)
        make_due(place)
        await until(partial(_is_called, place, calls), SECONDS, what=f"the call after {spoilt}")
        assert await _outcomes(made, order) == ["issued", "reused_after_drop"]
        assert _row(place)["sealed_pair"] == sealed, "half a pair is never stored"
        await made.authorise(SECONDS)
        assert calls_for_a_person(place) == calls + 1


async def _not_sent(made: World, place: Place) -> None:
    """Reset on the way, and no way out to Syncaroo at all: presented again, and nobody is called."""
    before, calls = await evidence(made), calls_for_a_person(place)
    order = (await made.sandbox.records()).order
    await made.sandbox.fault("token_drop", consume=False, count=2)
    make_due(place)
    await until(partial(issued, made, order), SECONDS, what="a pair after two resets")
    assert await _outcomes(made, order) == ["dropped", "dropped", "issued"]
    await until(made.has_grant, SECONDS, what="the grant")

    await retire(made)
    order = (await made.sandbox.records()).order
    nobody = {"EGRESS_PROXY": f"http://127.0.0.1:{free_port()}"}
    [name] = await made.stack.start("token", settings=nobody)
    make_due(place)
    await until(lambda: made.stack.logs(name).count("grant.not_renewed") >= 2, SECONDS, what="two attempts in vain")
    assert await made.stack.terminate(name) == 0
    row = _row(place)
    assert (row["state"], row["intent"], row["last_error"]) == ("active", None, "ClientProxyConnectionError")
    assert await _outcomes(made, order) == []
    await made.stack.start("token")
    await until(partial(issued, made, order), SECONDS, what="a pair when there is a way")
    assert await _outcomes(made, order) == ["issued"]
    assert calls_for_a_person(place) == calls
    compare(before, await evidence(made), again=False)


# --- what the API refuses


async def _loop(run: Played, wanted: set[str], place: Place) -> None:
    """An API that refuses every token, the new ones too: few are asked for, and all goes on when it has come round."""
    with run.play(*wanted):
        async with world(place.directory, amqp_url=place.amqp_url, database_url=place.database_url) as made:
            await made.onboard(CONNECTION)
            began, order = time.monotonic(), (await made.sandbox.records()).order
            await made.sandbox.fault("api_status", status=401, count=None)
            await made.sandbox.burst(30, 30, connection_id=CONNECTION)

            async def refused_twice() -> bool:
                calls = (await made.sandbox.records(after=order)).calls
                return len(calls) >= 60 and len({call.token for call in calls}) > 1

            await until(refused_twice, SECONDS, what="the old token's refusals, and a new one's")
            records = await made.sandbox.records(after=order)
            assert {call.status for call in records.calls} <= {401, None}
            assert len(records.tokens) <= 1 + (time.monotonic() - began) // RENEW_AGAIN
            await made.sandbox.clear_faults()
            await made.ledger(SECONDS)
            assert await made.has_grant()
            assert calls_for_a_person(place) == 0


# --- what comes back from Syncaroo


async def _callbacks(run: Played, wanted: set[str], place: Place) -> None:
    """The ingress has its broker behind a proxy; the token worker has not."""
    with run.play(*wanted):
        async with Proxy.before(place.amqp_url) as proxy, alone(place, roles=("token",)) as made:
            await made.stack.start("ingress", settings={"AMQP_URL": proxy.url(place.amqp_url)})
            await until(lambda: answers(made.stack.url), SECONDS, what="the ingress to answer")
            for name, play in (
                (FIXED, _lying_host),
                (BROKER, partial(_without_broker, proxy=proxy)),
                (STORE, partial(_without_store, place=place)),
            ):
                if name in wanted:
                    with run.play(name):
                        await play(made)


async def _lying_host(made: World) -> None:
    """Where the admin is sent, where they come back to, and whom the code is brought to, are settings."""
    async with Admin() as admin:
        link = await admin.allowed(made)
        http = admin.http
        asked = f"{made.stack.url}/connect?redirectUri=https://evil.test&clientId=evil"
        async with http.get(asked, headers=EVIL, allow_redirects=False) as answer:
            assert answer.status == 302
            there = answer.headers["Location"]
        assert there.startswith(f"{made.sandbox.base_url}/api/authorize?")
        query = parse_qs(urlsplit(there).query)
        assert query["redirectUri"] == [f"{made.stack.url}/confirm"]
        assert query["clientId"] == [made.stack.environment["SYNCAROO_CLIENT_ID"]]
        before = await evidence(made)
        async with http.get(f"{link}&redirectUri=https://evil.test", headers=EVIL) as answer:
            assert answer.status == 200
            assert "evil" not in await answer.text()
        await admin.follow(link, "Connected")
    after = await evidence(made)
    assert after.exchanges == [*before.exchanges, "issued"]
    assert after.violations == before.violations, "the redirectUri of an exchange is that of its link"


async def _without_broker(made: World, proxy: Proxy) -> None:
    """Gone, and silent: the page says so, and the same link works when the broker is back."""
    for mode in (Mode.RESET, Mode.BLACKHOLE):
        before = await evidence(made)
        async with Admin() as admin:
            link = await admin.allowed(made)
            proxy.mode = mode
            try:
                page = await admin.open(link)
                assert (page.status, "Reload" in page.html) == (503, True), mode
            finally:
                proxy.mode = Mode.PASS
            await admin.follow(link, "Connected")
        assert (await evidence(made)).exchanges == [*before.exchanges, "issued"], mode


async def _without_store(made: World, place: Place) -> None:
    """Nobody can write: said so, and nothing is exchanged; afterwards the same link works."""
    before = await evidence(made)
    async with Admin() as admin:
        link = await admin.allowed(made)
        with lock(place):
            for path in (link, f"{made.stack.url}/connect"):
                async with admin.http.get(path, allow_redirects=False) as answer:
                    assert (answer.status, int(answer.headers["Retry-After"]) > 0) == (503, True), path
            assert (await evidence(made)).exchanges == before.exchanges
        await admin.follow(link, "Connected")
    assert (await evidence(made)).exchanges == [*before.exchanges, "issued"]


# --- what they are made of


async def _outcomes(made: World, order: int) -> list[str]:
    return [one.outcome for one in (await made.sandbox.records(after=order)).tokens]


def _is_newer(place: Place, version: int) -> bool:
    return bool(_row(place)["rt_version"] > version)


def _is_called(place: Place, calls: int) -> bool:
    return calls_for_a_person(place) > calls


def _row(place: Place) -> sqlite3.Row:
    with sqlite3.connect(place.database, timeout=30) as store:
        store.row_factory = sqlite3.Row
        row: sqlite3.Row = store.execute('SELECT * FROM "grant"').fetchone()
    store.close()
    return row


def _seconds_between(place: Place, first: str, second: str) -> float:
    with sqlite3.connect(place.database, timeout=30) as store:
        [seconds] = store.execute(f'SELECT (julianday({second}) - julianday({first})) * 86400 FROM "grant"').fetchone()
    store.close()
    return float(seconds)


# --- what came of it


@pytest.mark.parametrize("play", [NOT_SENT])
async def test_a_request_that_never_arrived_is_repeated_by_its_process_or_the_next(played: Played, play: str) -> None:
    """T-RT-NOTSENT."""
    assert played.outcomes[play] == ""


@pytest.mark.parametrize("play", [NO_VERDICT, HALF, LIFETIME])
async def test_an_odd_answer_costs_one_call_for_a_person_at_most(played: Played, play: str) -> None:
    """T-RT-BADRESP: refusals that say nothing, HTML, half a pair, and lifetimes that make no sense."""
    assert played.outcomes[play] == ""


@pytest.mark.parametrize("play", [LOOP])
async def test_an_api_that_refuses_every_token_gets_few_new_ones_and_is_caught_up_with(
    played: Played, play: str
) -> None:
    """T-RT-401LOOP."""
    assert played.outcomes[play] == ""


@pytest.mark.parametrize("play", [FIXED])
async def test_a_host_header_that_lies_leads_nobody_and_no_code_astray(played: Played, play: str) -> None:
    """T-CB-FIXED."""
    assert played.outcomes[play] == ""


@pytest.mark.parametrize("play", [BROKER, STORE])
async def test_a_link_that_came_while_a_neighbour_was_away_works_afterwards(played: Played, play: str) -> None:
    """T-CB-DOWN."""
    assert played.outcomes[play] == ""
