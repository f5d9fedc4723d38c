"""The broker: whether it lets us in, what our user may, what is declared there, policies and alarms."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from aio_pika.abc import AbstractConnection

from common.broker.topology import EXCHANGES, WORK
from common.settings import ManagementSettings
from ops.broker.broker import VhostRefused, without_password
from ops.broker.find import admin_of
from ops.broker.vhosts import ByManagement
from ops.doctor import amqp
from ops.doctor.around import Around, Place
from ops.doctor.finding import Finding, failed, ok, skipped, warning, worst
from ops.doctor.rights import Right, listens, rights_of
from ops.policies import Policy, event_policies

Ask = Callable[[Place, AbstractConnection], Awaitable[Finding]]


async def reach(around: Around) -> Finding:
    """Whether each broker lets us into its virtual host."""
    return worst([await _reach(place) for place in around.places()])


async def _reach(place: Place) -> Finding:
    where = without_password(place.url)
    try:
        async with amqp.opened(place.url) as connection:
            return ok(f"RabbitMQ {_version(connection)} at {where}")
    except amqp.NoBroker as error:
        return failed(f"{place.setting}: {where}: {error}", mend_broker(place, error.kind))


def _version(connection: AbstractConnection) -> str:
    properties: dict[str, Any] = getattr(getattr(connection.transport, "connection", None), "server_properties", {})
    return str(properties.get("version", "?"))


def mend_broker(place: Place, kind: amqp.Trouble) -> str:
    """What to do about a broker that does not let us in. Pure; the password is not told."""
    parts = urlsplit(place.url)
    user, vhost = unquote(parts.username or "guest"), vhost_of(place.url)
    return {
        "password": f"put the right user and password into {place.setting} (/, # and @ escaped), or "
        f"`rabbitmqctl change_password {user}`",
        "vhost": f"`rabbitmqctl add_vhost {vhost}`, then `rabbitmqctl set_permissions -p {vhost} {user} …`, or name "
        f"another in {place.setting}",
        "name": f"correct the host in {place.setting}, or its DNS entry",
        "refused": f"start the broker, or correct host and port in {place.setting}",
        "tls": f"check scheme (amqp or amqps), port and the broker's certificate; {place.setting} names them",
        "silent": f"check the port in {place.setting} (AMQP's is 5672), firewalls, and whether the broker hangs",
        "other": f"look into the broker's log, and compare with {place.setting}",
    }[kind]


def vhost_of(url: str) -> str:
    """The virtual host of an AMQP address."""
    return unquote(urlsplit(url).path.removeprefix("/")) or "/"


async def rights(around: Around) -> Finding:
    """Whether our user may do what the role does."""

    async def ask(place: Place, connection: AbstractConnection) -> Finding:
        wanted = rights_of(around.role, place)
        lacking = []
        for right in wanted:
            answer = await amqp.may(connection, right)
            if answer == "blocked":
                return skipped("the broker takes nothing from publishers now: see alarms")
            lacking += [right.words] if answer == "forbidden" else []
        if listens(around.role, place) and await amqp.may_listen(connection) == "forbidden":
            lacking.append(f"have a queue amq.gen-… and read {WORK}")
        return judge_rights(place, lacking, wanted)

    return await _at_each(around, ask)


def judge_rights(place: Place, lacking: list[str], wanted: list[Right]) -> Finding:
    """Pure."""
    user, vhost = unquote(urlsplit(place.url).username or "guest"), vhost_of(place.url)
    if not lacking:
        return ok(f"{user} may do all that it has to ({len(wanted)} rights)")
    command = f"rabbitmqctl set_permissions -p {vhost} {user} CONFIGURE WRITE READ"
    return failed(
        f"{place.setting}: {user} may not {', nor '.join(lacking)}",
        f"`{command}` with patterns that match these names (`rabbitmqctl list_user_permissions {user}` shows them now)",
    )


async def topology(around: Around) -> Finding:
    """Whether everything is declared, and as we declare it."""

    async def ask(place: Place, connection: AbstractConnection) -> Finding:
        missing = [name for name in EXCHANGES if not await amqp.has_exchange(connection, name)]
        drifted: list[str] = []
        unseen = 0
        for queue in place.queues:
            if not await amqp.has_queue(connection, queue.name):
                missing.append(queue.name)
                continue
            answer, words = await amqp.drift_of(connection, queue)
            drifted += [words] if words else []
            unseen += answer == "forbidden"
        unbound = await asyncio.to_thread(_unbound, around, place)
        return judge_topology(place, missing, drifted, unbound, unseen)

    return await _at_each(around, ask)


def judge_topology(
    place: Place, missing: list[str], drifted: list[str], unbound: list[str] | None, unseen: int
) -> Finding:
    """Pure. `unbound`: None where bindings cannot be seen; `unseen`: queues whose arguments we may not compare."""
    if drifted:
        return failed(
            f"{place.setting}: {'; '.join(drifted)}",
            f"let it run empty, `rabbitmqctl delete_queue -p {vhost_of(place.url)} NAME`, then `gateway setup`",
        )
    if missing or unbound:
        told = [f"{name} is missing" for name in missing] + [f"{one} is not bound" for one in unbound or ()]
        return failed(f"{place.setting}: {_some(told)}", "`gateway setup`")
    if unseen:
        return ok(f"{len(place.queues)} queues are there; arguments of {unseen} not compared (no right to declare)")
    return ok(f"{len(place.queues)} queues are as they should be")


def _some(told: list[str], most: int = 5) -> str:
    return ", ".join(told[:most]) + (f" and {len(told) - most} more" if len(told) > most else "")


def _unbound(around: Around, place: Place) -> list[str] | None:
    """Bindings that are missing, by the management API; None: it does not say."""
    try:
        told = _management(around, place).call("GET", f"/api/bindings/{quote(vhost_of(place.url), safe='')}")
    except VhostRefused:
        return None
    if not isinstance(told, list):
        return None
    there = {(one.get("source"), one.get("routing_key"), one.get("destination")) for one in told}
    return [
        f"{queue.name} to {binding.exchange} by {binding.key}"
        for queue in place.queues
        for binding in queue.bindings
        if (binding.exchange, binding.key, queue.name) not in there and any(one[2] == queue.name for one in there)
    ]


def _management(around: Around, place: Place) -> ByManagement:
    given = around.of(ManagementSettings).amqp_management_url
    return admin_of(place.url, {} if given is None else {"AMQP_MANAGEMENT_URL": given.get_secret_value()})


async def policies(around: Around) -> Finding:
    """Whether the event log and subscribers' queues have the limits that the settings say."""
    place = around.places()[-1]
    wanted = event_policies(place.url, around.of(ManagementSettings))
    try:
        found = [await asyncio.to_thread(_policy, _management(around, place), policy) for policy in wanted]
    except VhostRefused as error:
        return skipped(f"{error}; AMQP_MANAGEMENT_URL says where it is asked")
    return judge_policies(list(zip(wanted, found, strict=True)))


def _policy(api: ByManagement, policy: Policy) -> dict[str, Any] | None:
    """As it is there; None: it is not."""
    kind = "operator-policies" if policy.is_operators else "policies"
    listed = api.call("GET", f"/api/{kind}/{quote(policy.vhost, safe='')}")
    named = [one for one in listed if one.get("name") == policy.name] if isinstance(listed, list) else []
    return named[0] if named else None


def judge_policies(pairs: Iterable[tuple[Policy, dict[str, Any] | None]]) -> Finding:
    """Pure."""
    wrong = [
        f"{policy.name} is {'missing' if there is None else 'another one'}"
        for policy, there in pairs
        if ({} if there is None else there.get("definition")) != dict(policy.definition)
        or (there is not None and there.get("pattern") != policy.pattern)
    ]
    if wrong:
        return warning(f"policy {', '.join(wrong)}: disk use has other limits than the settings say", "`gateway setup`")
    return ok("as the settings say")


async def alarms(around: Around) -> Finding:
    """Whether the broker takes messages: under a memory or disk alarm it holds every publisher up."""

    async def ask(place: Place, connection: AbstractConnection) -> Finding:
        # Twice: RabbitMQ takes the first message of a connection under an alarm, and nothing after it.
        answers = [await amqp.may(connection, Right("write", WORK)) for _ in range(2)]
        which = await asyncio.to_thread(_alarms, around, place)
        if "blocked" not in answers and not which:
            return ok("none")
        return failed(
            f"{place.setting}: the broker holds up whoever publishes ({' and '.join(which) or 'memory or disk'} alarm)",
            "`rabbitmq-diagnostics alarms` says which node; free disk space (or lower disk_free_limit), or have queues "
            "read (or raise vm_memory_high_watermark)",
        )

    return await _at_each(around, ask)


def _alarms(around: Around, place: Place) -> list[str]:
    """`disk`, `memory`, by the management API; nothing where that does not say."""
    try:
        nodes = _management(around, place).call("GET", "/api/nodes")
    except VhostRefused:
        return []
    known = nodes if isinstance(nodes, list) else []
    names = {"disk_free_alarm": "disk", "mem_alarm": "memory"}
    return [word for name, word in names.items() if any(one.get(name) for one in known)]


async def _at_each(around: Around, ask: Ask) -> Finding:
    findings = []
    for place in around.places():
        try:
            async with amqp.opened(place.url) as connection:
                findings.append(await ask(place, connection))
        except amqp.NoBroker as error:
            findings.append(failed(f"{place.setting}: {error}", mend_broker(place, error.kind)))
    return worst(findings)
