"""`gateway doctor` on set-ups that are broken for real: it names that fault and no other, and what to do about it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pytest
import pytest_asyncio
from alembic import command
from sqlalchemy import text

from common.broker.setup import declare_topology
from common.broker.topology import event_queues, work_queues
from common.clock import utc_now
from common.crypto import TokenCipher
from common.settings import RetrySettings
from common.store.engine import Store
from common.token_pair import Pair, pack
from ops.broker import Broker, PrivateNode, Vhost
from ops.children import free_port
from ops.doctor.checks import NAMES
from ops.migrating import alembic_config
from ops.stack import Stack, environment, sandbox_arguments
from schemas.tables import SYNCAROO_ACCOUNT, BeatRow, GrantRow, table_of
from tests.fixtures.broker import Vhosts
from tests.fixtures.disk import small_disk

pytestmark = pytest.mark.asyncio(loop_scope="module")

Findings = dict[str, dict[str, str]]
NOT_SET = {"inventory", "identity"}
"""What the set-ups of these tests do without."""


@dataclass
class Patient:
    """A set-up: its processes and settings."""

    stack: Stack

    @property
    def store_file(self) -> str:
        return self.stack.environment["DATABASE_URL"].partition("///")[2]

    async def ask(self, *words: str, **settings: str) -> tuple[int, Findings]:
        """`gateway doctor` with some settings changed → exit code and findings by name."""
        done = await self.stack.run("-m", "ops", "doctor", "--json", *words, settings=settings)
        assert "Traceback" not in done.output, done.output
        for name in ("ADMIN_TOKEN", "SECRET_KEYS", "PLATFORM_CLIENT_SECRET", "SYNCAROO_CLIENT_SECRET"):
            assert self.stack.environment[name] not in done.output
        found = {one.pop("name"): one for one in json.loads(done.output)["checks"]}
        return done.code, found

    async def finds(self, fault: str, *words: str, **settings: str) -> dict[str, str]:
        """What it says of the one thing that has failed; exit code 1."""
        code, found = await self.ask(*words, **settings)
        assert failures(found) == [fault], found
        assert code == 1
        assert found[fault]["advice"]
        return found[fault]


def failures(found: Findings) -> list[str]:
    return [name for name, one in found.items() if one["state"] == "failed"]


@asynccontextmanager
async def healthy(vhost: Vhost, database_url: str, directory: Path, management: str | None) -> AsyncIterator[Patient]:
    """Everything set up, an ingress and a stand-in Syncaroo that run, access that was granted, a relay that leads."""
    settings = environment(amqp_url=vhost.url, database_url=database_url, management=management)
    async with Stack(settings, directory / "stack") as stack:
        await stack.start("sandbox", arguments=sandbox_arguments(stack.environment))
        done = await stack.run("-m", "ops", "setup")
        assert done.code == 0, done.output
        await grant_access(database_url, settings["SECRET_KEYS"])
        await stack.start("ingress")
        await stack.wait_ready()
        yield Patient(stack)


async def grant_access(database_url: str, key: str) -> None:
    store = Store(database_url)
    sealed = TokenCipher([key]).seal(pack(Pair(access_token="access", refresh_token="refresh")))
    grant = {"account": SYNCAROO_ACCOUNT, "state": "active", "sealed_pair": sealed}
    async with store.transaction() as transaction:
        now = await transaction.now()
        await transaction.execute(table_of(GrantRow).insert(), {**grant, "expires_at": now + timedelta(hours=1)})
        await transaction.execute(table_of(BeatRow).insert(), {"name": "relay", "at": now + timedelta(hours=1)})
    await store.close()


@pytest_asyncio.fixture(loop_scope="module")
async def patient(vhost: Vhost, broker: Broker, database_url: str, tmp_path: Path) -> AsyncIterator[Patient]:
    async with healthy(vhost, database_url, tmp_path, broker.management) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(vhosts: Vhosts, broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Patient]:
    """One set-up for all faults that are a setting, or a copy of its database or of its broker's queues, away."""
    folder = tmp_path_factory.mktemp("doctor")
    vhost = vhosts.take()
    async with healthy(vhost, f"sqlite+aiosqlite:///{folder / 'gateway.db'}", folder, broker.management) as found:
        yield found
    vhosts.give_back(vhost)


@pytest.fixture
def sqlite_url(one: Patient, tmp_path: Path) -> str:
    """A copy of its database, to be spoilt."""
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(one.store_file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return f"sqlite+aiosqlite:///{copy}"


@pytest_asyncio.fixture(loop_scope="module")
async def queues(vhost: Vhost) -> Vhost:
    """Everything declared once more, to be spoilt."""
    return await declared(vhost)


@pytest_asyncio.fixture(loop_scope="module")
async def private_queues(private_vhost: Vhost) -> Vhost:
    """The same on a node of our own, that may be ill-treated."""
    return await declared(private_vhost)


async def declared(vhost: Vhost) -> Vhost:
    await declare_topology(vhost.url, [*work_queues(RetrySettings().retry_delays), *event_queues()])
    return vhost


async def test_of_a_healthy_set_up_everything_is_ok(patient: Patient) -> None:
    unseen = NOT_SET if "AMQP_MANAGEMENT_URL" in patient.stack.environment else NOT_SET | {"policies"}

    code, found = await patient.ask()

    assert {name: one for name, one in found.items() if one["state"] != "ok" and name not in unseen} == {}
    assert code == 0
    assert tuple(found) == NAMES


async def test_it_leaves_nothing_and_changes_nothing(one: Patient) -> None:
    places = one.stack.environment["AMQP_URL"], one.stack.environment["DATABASE_URL"]
    before = await contents(*places)

    await one.ask()

    assert await contents(*places) == before


async def contents(url: str, database_url: str) -> tuple[Any, Any]:
    """How many messages wait in each queue, and the rows of the tables that are short."""
    names = ("syncaroo.token", "syncaroo.fetch", "syncaroo.reconcile", "syncaroo.events.log", "syncaroo.token.dead")
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queues = [await channel.get_queue(name) for name in names]
        waiting = [queue.declaration_result.message_count for queue in queues]
        readers = [queue.declaration_result.consumer_count for queue in queues]
    store = Store(database_url)
    async with store.reading() as transaction:
        rows = [tuple(row) for row in await transaction.rows(text("SELECT name, value FROM fact ORDER BY name"))]
    await store.close()
    return (waiting, readers), rows


# --- the broker


async def test_a_wrong_password(one: Patient) -> None:
    wrong = with_user(one.stack.environment["AMQP_URL"], "guest", "geheim")

    said = await one.finds("broker", AMQP_URL=wrong)

    assert "refuses user and password" in said["seen"]
    assert "AMQP_URL" in said["advice"]
    assert "geheim" not in str(said)


async def test_no_broker(one: Patient) -> None:
    said = await one.finds("broker", AMQP_URL=f"amqp://guest:guest@127.0.0.1:{free_port()}/x")

    assert "nothing listens there" in said["seen"]
    assert said["advice"].startswith("start the broker")


async def test_a_virtual_host_that_is_not_there(one: Patient) -> None:
    nowhere = urlsplit(one.stack.environment["AMQP_URL"])._replace(path="/nowhere").geturl()

    said = await one.finds("broker", AMQP_URL=nowhere)

    assert "no such virtual host" in said["seen"]
    assert "rabbitmqctl add_vhost nowhere" in said["advice"]


def with_user(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port or 5672}").geturl()


ROLES: dict[str, tuple[str, str, str]] = {
    "ingress": ("", "^syncaroo[.]work$", ""),
    "token": ("", "^syncaroo[.]work$", "^syncaroo[.]token([.]dead)?$"),
    "fetch": ("", "^syncaroo[.]work$", "^syncaroo[.]fetch([.]dead)?$"),
    "reconcile": ("", "^syncaroo[.]work$", "^syncaroo[.]reconcile([.]dead)?$"),
    "relay": (
        "^amq[.]gen",
        "^(syncaroo[.](work|events|log)|amq[.](default|gen.*))$",
        "^(syncaroo[.](work|snapshot([.]dead)?)|amq[.]gen.*)$",
    ),
}
"""What each role needs: configure, write, read."""
LACKING = {
    "ingress": (1, "write to syncaroo.work"),
    "token": (2, "read syncaroo.token"),
    "fetch": (2, "read syncaroo.fetch"),
    "reconcile": (1, "write to syncaroo.work"),
    "relay": (1, "write to syncaroo.events"),
}
"""Which pattern is taken away, and what is said then."""


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_with_its_rights_and_without_one(
    role: str, one: Patient, private_node: PrivateNode, private_queues: Vhost
) -> None:
    patterns, (place, words) = ROLES[role], LACKING[role]
    less = [*patterns[:place], "^$", *patterns[place + 1 :]]
    asked = ("--only", "rights", "--role", role)
    user = private_queues.name
    private_node.ctl("add_user", user, "geheim")
    url = with_user(private_queues.url, user, "geheim")

    permit(private_node, user, patterns)
    code, found = await one.ask(*asked, AMQP_URL=url)
    assert (code, found["rights"]["state"]) == (0, "ok"), found

    permit(private_node, user, less)
    said = await one.finds("rights", *asked, AMQP_URL=url)
    assert words in said["seen"]
    assert f"rabbitmqctl set_permissions -p {user} {user}" in said["advice"]


SECRETS: dict[str, set[str]] = {
    "ingress": {"SECRET_KEYS", "ADMIN_TOKEN", "PLATFORM_CLIENT_SECRET", "SYNCAROO_CLIENT_SECRET"},
    "token": {"SECRET_KEYS", "SYNCAROO_CLIENT_SECRET"},
    "fetch": {"SECRET_KEYS"},
    "reconcile": set(),
    "relay": set(),
}
"""Which of them a container of the role has."""


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_with_only_what_is_its_own_is_healthy(
    role: str, one: Patient, private_node: PrivateNode, private_queues: Vhost
) -> None:
    user = private_queues.name
    private_node.ctl("add_user", user, "geheim")
    permit(private_node, user, ROLES[role])
    others = dict.fromkeys(SECRETS["ingress"] - SECRETS[role], "")

    code, found = await one.ask("--role", role, AMQP_URL=with_user(private_queues.url, user, "geheim"), **others)

    assert (code, failures(found)) == (0, []), found
    assert found["settings"]["state"] == "ok"
    assert found["rights"]["state"] == "ok"


def permit(node: PrivateNode, name: str, patterns: Sequence[str]) -> None:
    """The user of that name in the virtual host of that name."""
    node.ctl("set_permissions", "-p", name, name, *(pattern or "^$" for pattern in patterns))


async def test_a_queue_that_was_declared_otherwise(one: Patient, queues: Vhost) -> None:
    async with await aio_pika.connect(queues.url) as connection:
        channel = await connection.channel()
        await channel.queue_delete("syncaroo.fetch")
        again = await channel.declare_queue("syncaroo.fetch", durable=True)
        await again.bind("syncaroo.work", "fetch.*")

    said = await one.finds("topology", AMQP_URL=queues.url)

    assert "queue syncaroo.fetch exists with another x-" in said["seen"]
    assert "delete_queue" in said["advice"]
    assert "gateway setup" in said["advice"]


async def test_a_queue_that_is_missing_is_not_made(one: Patient, queues: Vhost) -> None:
    async with await aio_pika.connect(queues.url) as connection:
        await (await connection.channel()).queue_delete("syncaroo.reconcile.dead")

        said = await one.finds("topology", "--only", "topology", AMQP_URL=queues.url)

        assert "syncaroo.reconcile.dead is missing" in said["seen"]
        assert said["advice"] == "`gateway setup`"
        with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
            await (await connection.channel()).get_queue("syncaroo.reconcile.dead")


async def test_a_binding_that_is_missing(one: Patient, private_node: PrivateNode, private_queues: Vhost) -> None:
    async with await aio_pika.connect(private_queues.url) as connection:
        await (await (await connection.channel()).get_queue("syncaroo.fetch")).unbind("syncaroo.work", "fetch.*")

    said = await one.finds("topology", "--only", "topology", **at(private_node, private_queues))

    assert "syncaroo.fetch to syncaroo.work by fetch.* is not bound" in said["seen"]


def at(node: PrivateNode, vhost: Vhost) -> dict[str, str]:
    assert node.management is not None
    return {"AMQP_URL": vhost.url, "AMQP_MANAGEMENT_URL": node.management}


async def test_policies_that_are_missing(one: Patient, private_node: PrivateNode, private_queues: Vhost) -> None:
    code, found = await one.ask("--only", "policies", **at(private_node, private_queues))

    assert code == 0, "only disk use depends on them"
    assert found["policies"]["state"] == "warning"
    assert "syncaroo-event-log is missing, syncaroo-subscribers is missing" in found["policies"]["seen"]
    assert found["policies"]["advice"] == "`gateway setup`"


async def test_the_brokers_disk_is_full(one: Patient, private_node: PrivateNode, private_queues: Vhost) -> None:
    private_node.ctl("set_disk_free_limit", "900000GB")
    try:
        said = await one.finds("alarms", **at(private_node, private_queues))
        nowhere = f"http://127.0.0.1:{free_port()}"
        blind = await one.finds("alarms", AMQP_URL=private_queues.url, AMQP_MANAGEMENT_URL=nowhere)
    finally:
        private_node.ctl("set_disk_free_limit", "50MB")

    assert "disk alarm" in said["seen"]
    assert "memory or disk alarm" in blind["seen"], "seen without the management API, too"
    assert "rabbitmq-diagnostics alarms" in said["advice"]


# --- the database


async def test_an_old_schema(one: Patient, sqlite_url: str) -> None:
    store = Store(sqlite_url)
    async with store.transaction() as transaction:
        await transaction.execute_sync(to_revision_6)
    await store.close()

    said = await one.finds("schema", DATABASE_URL=sqlite_url)

    assert "schema 0006 is older than this program's" in said["seen"]
    assert said["advice"] == "`gateway setup`"


def to_revision_6(connection: Any) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.downgrade(config, "0006")


async def test_a_newer_schema_and_one_that_somebody_has_changed(one: Patient, database_url: str) -> None:
    await execute(database_url, "DROP INDEX ix_event_created")
    code, found = await one.ask("--only", "schema", DATABASE_URL=database_url)
    assert (code, found["schema"]["state"]) == (0, "warning")
    assert "index ix_event_created is missing" in found["schema"]["seen"]

    await execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    said = await one.finds("schema", DATABASE_URL=database_url)
    assert "9999 is newer" in said["seen"]
    assert said["advice"] == "run the newer program"


async def execute(url: str, statement: str) -> None:
    store = Store(url)
    async with store.transaction() as transaction:
        await transaction.execute(text(statement))
    await store.close()


async def test_no_tables_no_file_no_server(one: Patient, tmp_path: Path) -> None:
    nowhere = await one.finds("store", DATABASE_URL=f"sqlite+aiosqlite:///{tmp_path / 'nowhere.db'}")
    assert "there is no file" in nowhere["seen"]
    assert not (tmp_path / "nowhere.db").exists(), "it is not made"

    (tmp_path / "empty.db").touch()
    empty = await one.finds("schema", DATABASE_URL=f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}")
    assert empty["advice"] == "`gateway setup`"

    port = free_port()
    away = await one.finds("store", DATABASE_URL=f"postgresql+asyncpg://gateway:geheim@127.0.0.1:{port}/x")
    assert "nothing listens there" in away["seen"]
    assert "geheim" not in away["seen"]


async def test_a_database_that_does_not_know_us(one: Patient, postgresql: str) -> None:
    server = postgresql.replace("postgresql:", "postgresql+asyncpg:")
    unknown = await one.finds("store", DATABASE_URL=server.rpartition("/")[0] + "/nowhere")

    assert "there is no such database" in unknown["seen"]
    assert "createdb" in unknown["advice"]


async def test_another_environments_store(one: Patient) -> None:
    said = await one.finds("environment", EVENT_SOURCE="https://elsewhere.example")

    assert "EVENT_SOURCE" in said["seen"]


async def test_a_full_disk(one: Patient, sqlite_url: str) -> None:
    with small_disk(megabytes=4) as disk:
        shutil.copy(sqlite_url.partition("///")[2], disk / "gateway.db")

        said = await one.finds("disk", DATABASE_URL=f"sqlite+aiosqlite:///{disk / 'gateway.db'}")

        assert "the disk is full" in said["seen"]
        assert str(disk) in said["advice"]


async def test_a_database_that_may_not_be_written(one: Patient, sqlite_url: str) -> None:
    blocker = Store(sqlite_url)
    async with blocker.transaction():
        said = await one.finds("disk", "--only", "disk", DATABASE_URL=sqlite_url)
    await blocker.close()

    assert "another process holds the database" in said["seen"]


async def test_a_key_that_is_lost(one: Patient) -> None:
    other = (await one.stack.run("-m", "ops", "keys", "new")).output.strip()

    said = await one.finds("keys", SECRET_KEYS=other)

    assert "no key opens Syncaroo's stored tokens" in said["seen"]
    assert "gateway keys check" in said["advice"]


async def test_what_waits_for_a_person(one: Patient, sqlite_url: str) -> None:
    await execute(sqlite_url, "UPDATE \"grant\" SET state = 'needs_authorisation'")
    await execute(
        sqlite_url,
        "INSERT INTO parked (parked_id, queue, reason, routing_key, schema_name, body, attempts, parked_at) "
        f"VALUES ('1', 'syncaroo.fetch', 'bad_json', 'fetch.1', 'x', x'00', 1, '{utc_now():%Y-%m-%d %H:%M:%S.%f}')",
    )
    await execute(sqlite_url, "UPDATE beat SET at = '2026-01-01 00:00:00.000000' WHERE name = 'relay'")

    code, found = await one.ask(DATABASE_URL=sqlite_url)

    assert code == 1
    assert failures(found) == ["grant", "relay"]
    assert found["grant"]["advice"].endswith("/connect and authorise")
    assert found["parked"]["state"] == "warning"
    assert "1 bad_json" in found["parked"]["seen"]
    assert "gateway dlq list" in found["parked"]["advice"]
    assert "python -m workers relay" in found["relay"]["advice"]


# --- Syncaroo, our own addresses, clocks, settings


async def test_an_api_that_cannot_be_reached(one: Patient) -> None:
    hosts = f"{urlsplit(one.stack.sandbox_url).netloc},127.0.0.1:{free_port()},nowhere.invalid"

    said = await one.finds("syncaroo", SYNCAROO_API_HOSTS=hosts)

    assert "no TCP connection (ConnectionRefusedError)" in said["seen"]
    assert "nowhere.invalid/: DNS does not know the name" in said["seen"]
    assert "SYNCAROO_API_HOSTS" in said["advice"]


async def test_tls_where_there_is_none(one: Patient) -> None:
    said = await one.finds("syncaroo", "--only", "syncaroo", SYNCAROO_ALLOW_HTTP="false")

    assert "TLS fails" in said["seen"]


async def test_a_redirect_that_syncaroo_does_not_know(one: Patient) -> None:
    said = await one.finds("redirect", SYNCAROO_CLIENT_ID="somebody-else")
    assert "inferred" in said["seen"]
    assert "SYNCAROO_CLIENT_ID" in said["advice"]

    site = f"http://localhost:{one.stack.environment['HTTP_PORT']}"
    said = await one.finds("redirect", "--only", "redirect", SITE_URI=site)
    assert f"{site}/confirm" in said["seen"]
    assert "developer portal" in said["advice"]


async def test_our_own_place_is_somebody_elses(one: Patient) -> None:
    stranger = one.stack.sandbox_url
    said = await one.finds("site", "--url", stranger)
    assert "somebody else's server" in said["seen"]

    said = await one.finds("site", API_PATH="/elsewhere/")
    assert "/elsewhere/check_connection answers 404" in said["seen"]
    assert "API_PATH" in said["advice"]

    nobody = await one.finds("site", "--url", f"http://127.0.0.1:{free_port()}")
    assert "python -m ingress" in nobody["advice"]


async def test_users_may_not_be_sent_back_to_us(one: Patient) -> None:
    ours = one.stack.environment["SITE_URI"]
    said = await one.finds("platform", PLATFORM_REDIRECT_URIS=f"{ours}/x,https://app.syncaroo.com/connection#x")

    assert "is our own site" in said["seen"]
    assert "has a fragment" in said["seen"]


async def test_a_clock_that_is_wrong(one: Patient, clock_of: Any) -> None:
    async with clock_of(timedelta(minutes=-10)) as url:
        said = await one.finds("clock", "--only", "clock", SYNCAROO_BASE_URL=url)
        assert "Syncaroo's is 600 s behind" in said["seen"] or "Syncaroo's is 599 s behind" in said["seen"]
        assert "NTP" in said["advice"]

    async with clock_of(timedelta(seconds=20)) as url:
        code, found = await one.ask("--only", "clock", SYNCAROO_BASE_URL=url)
        assert (code, found["clock"]["state"]) == (0, "warning")


@pytest.fixture
def clock_of() -> Any:
    from aiohttp import hdrs, web
    from aiohttp.test_utils import TestServer

    @asynccontextmanager
    async def serving(ahead: timedelta) -> AsyncIterator[str]:
        async def answer(_: web.Request) -> web.Response:
            date = (utc_now() + ahead).strftime("%a, %d %b %Y %H:%M:%S GMT")
            return web.Response(headers={hdrs.DATE: date})

        app = web.Application()
        app.router.add_get("/{any:.*}", answer)
        async with TestServer(app) as server:
            yield str(server.make_url("")).rstrip("/")

    return serving


async def test_a_placeholder_for_a_secret(one: Patient) -> None:
    code, found = await one.ask(SYNCAROO_CLIENT_SECRET="changeme", ADMIN_TOKEN="")

    assert code == 78
    assert failures(found) == ["settings"]
    assert "SYNCAROO_CLIENT_SECRET: is empty or a placeholder" in found["settings"]["seen"]
    assert "ADMIN_TOKEN: is required and not set" in found["settings"]["seen"]
    assert "SYNCAROO_CLIENT_SECRET" in found["settings"]["advice"]


async def test_values_that_are_right_and_unwise(one: Patient) -> None:
    code, found = await one.ask("--only", "settings", ADMIN_TOKEN="short", SYNCAROO_ALLOW_HTTP="false")

    assert (code, found["settings"]["state"]) == (0, "warning")
    assert "ADMIN_TOKEN" in found["settings"]["seen"]
    assert "SITE_URI: is this machine only" in found["settings"]["seen"]


async def test_it_ends_whatever_hangs(one: Patient, private_node: PrivateNode, private_queues: Vhost) -> None:
    began = utc_now()
    private_node.freeze()
    try:
        said = await one.finds("broker", AMQP_URL=private_queues.url)
    finally:
        private_node.resume()

    assert "no AMQP answer" in said["seen"]
    assert utc_now() - began < timedelta(seconds=25)
