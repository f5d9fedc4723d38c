"""The canary run: the whole flow, with and without trouble, and afterwards no secret is anywhere in clear.

T-SECRETS-LOG, T-SECRETS-AMQP. Once on each database, side by side; everything is looked through, and in every place
something is found that belongs there, so that the search is known to work.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aio_pika
import aiohttp
import pytest
from sqlalchemy import MetaData, select
from yarl import URL

from common import settings as sections
from common.access_tokens import PREFIX as ACCESS_PREFIX
from common.broker.topology import WORK, event_queues, work_queues
from common.codec import dumps, loads
from common.settings import Section, parse_duration
from common.store.engine import Store
from ingress.oauth.exchange import REFRESH_PREFIX
from ops.broker import PrivateNode
from ops.stack import WORKERS
from tests.acceptance.leads import places
from tests.acceptance.world import ALLOW, PASSWORD, QUICK, RECORDER, Admin, Place, World, webhook_body, world
from tests.canaries import found
from tests.collector import collector
from tests.fixtures.broker import Vhosts
from tests.waiting import until

pytestmark = pytest.mark.timeout(900)

CONNECTION = 99
USER = f"user-{CONNECTION}"
SECONDS = 90.0
MARK = "canary-of-syncaroo-"
GUESS = "canary-guessed-password"
FOREIGN_CODE = "canary-of-a-foreign-code"
BROKER_PASSWORD = "canary-broker-password-1Bc"
DATABASE_PASSWORD = "canary-database-password-2Ef"
SETTINGS = {
    "LOG_LEVEL": "debug",
    "ADMIN_TOKEN": "canary-admin-token-7Jq",
    "PLATFORM_CLIENT_SECRET": "canary-platform-secret-8Kw,canary-platform-secret-9Lx",
    "SYNCAROO_CLIENT_SECRET": "canary-client-secret-5Mz",
    "WEBHOOK_HASH_KEY": "canary-hash-key-3Np",
    "WEBHOOK_HASH_MODE": "observe",
    "INVENTORY_URL": "http://127.0.0.1:9/{userId}",
    "INVENTORY_TOKEN": "canary-inventory-token-6Rt",
    "OTEL_EXPORTER_OTLP_HEADERS": "x-collector-key=canary-collector-key-2Sd",
}
OIDC = {
    "OIDC_ISSUER": "https://login.example",
    "OIDC_CLIENT_ID": "us",
    "OIDC_CLIENT_SECRET": "canary-oidc-secret-4Qv",
}
"""Nobody could log in with a password beside it; its log is looked through in `test_identity_provider`."""


async def test_no_secret_is_anywhere_in_clear(
    tmp_path: Path, private_node: PrivateNode, urls: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Vhosts(private_node.broker())) as pool:
        async with places(tmp_path, pool, urls) as pair, asyncio.TaskGroup() as both:
            runs = [both.create_task(_run(_with_passwords(place, private_node))) for place in pair.values()]
    for canaries, where, environment in (run.result() for run in runs):
        where["settings"] = _reprs({**environment, **OIDC}, monkeypatch)
        assert found(canaries, where) == []
        for place, control in CONTROLS.items():
            assert control in where[place], f"nothing was looked for in {place}"


CONTROLS = {
    "log of ingress-1": b"connect.code_received",
    "log of token-1": b"grant.",
    **{f"log of {role}-1": b"process.started" for role in ("fetch", "reconcile", "relay")},
    "queues": b"sealedCode",
    "events": b"listing.changed",
    "dead letters": b"unknown_attempt",
    "database": USER.encode(),
    "/metrics": b"# HELP",
    "traces": b"refresh",
    "answers": b"Not connected",
    "settings": b"StoreSettings",
}
"""What must be found, and where."""


def _with_passwords(place: Place, node: PrivateNode) -> Place:
    """As a user of the broker's whose password is a canary; of the database's, where the server asks for none."""
    amqp_url, vhost = URL(place.amqp_url), URL(place.amqp_url).path.removeprefix("/")
    user = f"of-{vhost}"
    node.ctl("add_user", user, BROKER_PASSWORD)
    node.ctl("set_permissions", "-p", vhost, user, ".*", ".*", ".*")
    found = replace(place, amqp_url=str(amqp_url.with_user(user).with_password(BROKER_PASSWORD)))
    if place.postgresql_url is None or URL(place.postgresql_url).password:
        return found
    return replace(found, postgresql_url=str(URL(place.postgresql_url).with_password(DATABASE_PASSWORD)))


async def _run(place: Place) -> tuple[dict[str, str], dict[str, bytes], Mapping[str, str]]:
    """All canaries, and all that was seen and left behind."""
    where: dict[str, bytes] = {}
    async with (
        collector() as told,
        world(
            place.directory,
            amqp_url=place.amqp_url,
            database_url=place.database_url,
            settings={**SETTINGS, **told.settings},
            sandbox=[
                f"--secret-mark={MARK}",
                f"--hash-key={SETTINGS['WEBHOOK_HASH_KEY']}",
                f"--platform-client-secret={SETTINGS['PLATFORM_CLIENT_SECRET'].partition(',')[0]}",
            ],
        ) as made,
    ):
        canaries = {**_of_settings(made.stack.environment), **await _onboard(made)}
        where["queues"] = await _queued_code(made)
        where["answers"] = await _trouble(made)
        await made.ledger(SECONDS, allow=["violations", "lost"])
        where["queues"] += await _peek(made, _queues())
        where |= await _told(made)
        await made.stack.stop()
        for name in ("ingress-1", *(f"{role}-1" for role in WORKERS)):
            where[f"log of {name}"] = made.stack.logs(name).encode()
        where["database"] = await _database(place)
        where["traces"] = b"\n".join(told.raw)
        assert all(SETTINGS["OTEL_EXPORTER_OTLP_HEADERS"].endswith(one["x-collector-key"]) for one in told.headers)
    return canaries, where, made.stack.environment


async def _told(made: World) -> dict[str, bytes]:
    """What operators and subscribers are told."""
    return {
        "/metrics": await _get(f"{made.stack.url}/metrics"),
        "dead letters": dumps(await made.admin.dead_letters()),
        "events": b"\n".join(message.body + repr(message.headers).encode() for message in made.messages),
    }


# --- the canaries


def _of_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Every secret that the processes were given, and those that people type and Syncaroo hands out."""
    names = ("ADMIN_TOKEN", "SYNCAROO_CLIENT_SECRET", "WEBHOOK_HASH_KEY", "SECRET_KEYS", "INVENTORY_TOKEN")
    collector_key = environment["OTEL_EXPORTER_OTLP_HEADERS"].partition("=")[2]
    first, second = environment["PLATFORM_CLIENT_SECRET"].split(",")
    return {
        **{name: environment[name] for name in names},
        "OIDC_CLIENT_SECRET": OIDC["OIDC_CLIENT_SECRET"],
        "OTEL_EXPORTER_OTLP_HEADERS": collector_key,
        "PLATFORM_CLIENT_SECRET": first,
        "PLATFORM_CLIENT_SECRET, the second": second,
        "a user's password": PASSWORD,
        "a guessed password": GUESS,
        "codes and tokens of Syncaroo": MARK,
        "a code of somebody": FOREIGN_CODE,
        "access tokens of ours": ACCESS_PREFIX + str(CONNECTION),
        "refresh tokens of ours": REFRESH_PREFIX + "0",
        "AMQP_URL": BROKER_PASSWORD,
        **({"DATABASE_URL": password} if (password := URL(environment["DATABASE_URL"]).password) else {}),
    }


async def _onboard(made: World) -> dict[str, str]:
    """As `World.onboard`, keeping the code that we issued, and what the browsers were given to remember."""
    await made.authorise(SECONDS)
    await made.connect(CONNECTION)
    async with Admin() as user:
        page = await user.open(await made.sandbox.connect(CONNECTION))
        page = await user.submit(page, text=USER, password=GUESS)
        assert page.status == 401
        page = await user.submit(page, text=USER, password=PASSWORD)
        page = await user.submit(page, button=ALLOW)
        [code] = parse_qs(urlsplit(page.url).query)["code"]
        assert user._http is not None
        cookies = [cookie.value for cookie in user._http.cookie_jar]
    await made.ledger(SECONDS)
    return {"a code of ours": code, **{f"cookie {number}": value for number, value in enumerate(cookies)}}


# --- the flow, and what goes wrong in it


async def _queued_code(made: World) -> bytes:
    """A code that waits in the queue, as whoever may read it there sees it; and one that is parked."""
    await made.stack.terminate("token-1")
    async with Admin() as admin:
        link = await admin.allowed(made)
        assert (await admin.open(link)).status == 200
        waiting = await _peek(made, ["syncaroo.token"])
        await _publish_for_nobody(made, waiting)
        await made.stack.restart("token-1")
        await admin.follow(link, "Connected")
    await until(made.admin.dead_letters, SECONDS, what="the code for nobody to be parked")
    return waiting


async def _publish_for_nobody(made: World, waiting: bytes) -> None:
    """The same message for an attempt that is not there."""
    body = dumps({**loads(waiting.splitlines()[0]), "attemptId": "nobody"})
    async with await aio_pika.connect(made.stack.environment["AMQP_URL"]) as connection:
        exchange = await (await connection.channel()).get_exchange(WORK)
        message = aio_pika.Message(body, headers={"schema": "CodeReceived"}, delivery_mode=2)
        await exchange.publish(message, "token.0")


async def _trouble(made: World) -> bytes:
    """What is refused, what is no answer, what is lost → all that was answered to it."""
    await made.sandbox.fault("token_missing")
    await made.sandbox.expire_access()
    await made.sandbox.burst(5, 5, connection_id=CONNECTION)
    await until(lambda: _needs_a_person(made), SECONDS, what="the call for a person")
    for kind in ("token_html", "token_status", "webhook_wrong_hash", "webhook_bad_token"):
        await made.sandbox.fault(kind)
    async with Admin() as admin:
        refused = await admin.allowed(made)
        page = await admin.open(refused)
        await admin.follow(refused, "Not connected")
        answers = [page.html, (await admin.open(refused)).html]
        answers += [(await admin.open(re.sub("state=[^&]+", "state=x", refused))).html]
    await made.authorise(SECONDS)
    await made.sandbox.burst(5, 5, connection_id=CONNECTION)
    return b"\n".join([*(answer.encode() for answer in answers), *await _refusals(made)])


async def _needs_a_person(made: World) -> bool:
    return bool((await made.admin.status())["grant"]["state"] == "needs_authorisation")


async def _refusals(made: World) -> list[bytes]:
    """Requests that bring a secret to where it is not taken."""
    base, mine = made.stack.url, made.stack.environment
    bearer = {"Authorization": f"Bearer {ACCESS_PREFIX}{CONNECTION}.forged"}
    form = {"clientId": mine["PLATFORM_CLIENT_ID"], "clientSecret": GUESS, "grantType": "authorization_code"}
    good = {**form, "clientSecret": mine["PLATFORM_CLIENT_SECRET"].split(",")[0]}
    body = webhook_body(CONNECTION, "http://elsewhere.invalid/v1/locations/1", "locations")
    asked = [
        ("GET", f"/confirm?code={FOREIGN_CODE}&state=x", {}, None),
        ("GET", f"/api/check_connection/?connectionId={CONNECTION}&accessToken={GUESS}", bearer, None),
        ("GET", f"/api/oauth/authorize?clientId={GUESS}&redirectUri=x", {}, None),
        ("GET", "/admin/v1/status", {"Authorization": f"Bearer {GUESS}"}, None),
        ("POST", "/api/update/", bearer, body),
        ("POST", "/api/oauth/token", {}, {**form, "code": FOREIGN_CODE}),
        ("POST", "/api/oauth/token", {}, {**good, "code": FOREIGN_CODE}),
        ("POST", "/api/oauth/token", {}, {**good, "grantType": "refresh_token", "refreshToken": FOREIGN_CODE}),
        ("POST", "/connect", {}, {"password": GUESS, "csrf": "x"}),
    ]
    async with aiohttp.ClientSession() as http:
        answers = []
        for method, path, headers, data in asked:
            async with http.request(method, base + path, headers=headers, data=data) as answer:
                assert 400 <= answer.status <= 499, (path, answer.status)
                answers.append(await answer.read() + repr(answer.headers).encode())
    return answers


# --- where it might be


async def _get(url: str) -> bytes:
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        assert answer.status == 200
        return await answer.read()


def _queues() -> list[str]:
    delays = [parse_duration(delay) for delay in QUICK["RETRY_DELAYS"].split(",")]
    streams = {queue.name for queue in event_queues()}  # what they have, the recorder has heard
    return [RECORDER, *(queue.name for queue in work_queues(delays) if queue.name not in streams)]


async def _peek(made: World, queues: list[str]) -> bytes:
    """All messages that wait there, with their headers; they go on waiting."""
    seen = []
    async with await aio_pika.connect(made.stack.environment["AMQP_URL"]) as connection:
        channel = await connection.channel()
        for name in queues:
            queue = await channel.get_queue(name)
            while (message := await queue.get(fail=False)) is not None:
                seen += [message.body, repr(message.info()).encode()]
    return b"\n".join(seen)


async def _database(place: Place) -> bytes:
    """SQLite's files as they lie there; all rows of all tables of PostgreSQL."""
    if not place.database_url.startswith("postgresql"):
        return b"".join(path.read_bytes() for path in place.directory.glob(f"{place.database.name}*"))
    store = Store(place.database_url)
    try:
        async with store.reading() as transaction:
            tables = MetaData()
            await transaction.execute_sync(tables.reflect)
            rows = [row for table in tables.sorted_tables for row in await transaction.rows(select(table))]
    finally:
        await store.close()
    return b"\n".join(_as_bytes(value) for row in rows for value in row)


def _as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _reprs(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Every section of the settings, as a traceback or a log would show it."""
    with monkeypatch.context() as patched:
        for name, value in environment.items():
            patched.setenv(name, value)
        made = [one() for one in vars(sections).values() if isinstance(one, type) and issubclass(one, Section)
                and one is not Section]  # fmt: skip
    return "\n".join(f"{one!r} {one} {one.model_dump()} {vars(one)}" for one in made).encode()
