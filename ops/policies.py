"""The broker's policies: ages and lengths, which may change while queues live (their arguments may not).

Two: how much the event log keeps, and how much a queue of anybody else may hold, so that a subscriber who sleeps does
not fill the broker's disk. Only disk use depends on them, so `setup` goes on without.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from common.broker.topology import EVENT_LOG, duration_name
from common.codec import dumps
from common.settings import ManagementSettings
from ops.broker.broker import VhostRefused
from ops.broker.find import admin_of
from ops.broker.local import run_ctl

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

SEGMENT_BYTES = 50 * 1000 * 1000
"""A log forgets whole segments only; RabbitMQ's own size of 500 MB would keep a small platform's events for years."""


@dataclass(frozen=True)
class Policy:
    """A policy of one virtual host; `definition` as RabbitMQ names its members, empty: there is to be none.

    An operator policy limits what queues' owners may want; RabbitMQ keeps the two apart.
    """

    vhost: str
    name: str
    pattern: str
    definition: Mapping[str, str | int]
    story: str
    """What it is about, for people."""
    is_operators: bool = False

    @property
    def words(self) -> list[str]:
        """What rabbitmqctl is told."""
        kind = "operator_policy" if self.is_operators else "policy"
        if not self.definition:
            return ["-p", self.vhost, f"clear_{kind}", self.name]
        definition = dumps(self.definition).decode()
        return ["-p", self.vhost, f"set_{kind}", "--apply-to", "queues", self.name, self.pattern, definition]

    @property
    def command(self) -> str:
        """What a person runs instead of us."""
        return shlex.join(["rabbitmqctl", *self.words])


def event_policies(amqp_url: str, settings: ManagementSettings) -> list[Policy]:
    """Those of the events' broker."""
    vhost = unquote(urlsplit(amqp_url).path.removeprefix("/")) or "/"
    return [_log_policy(vhost, settings), _subscribers_policy(vhost, settings)]


def _log_policy(vhost: str, settings: ManagementSettings) -> Policy:
    age, size = settings.event_log_age, settings.event_log_max_bytes
    most = f", {_bytes(size)} at most" if size else ""
    return Policy(
        vhost=vhost,
        name="syncaroo-event-log",
        pattern=f"^{EVENT_LOG.replace('.', '[.]')}$",
        definition=_limits(size)
        | {"max-age": f"{max(1, round(age.total_seconds()))}s", "stream-max-segment-size-bytes": SEGMENT_BYTES},
        story=f"the event log keeps events for {duration_name(age)}{most}",
    )


def _subscribers_policy(vhost: str, settings: ManagementSettings) -> Policy:
    number, size = settings.subscriber_max_messages, settings.subscriber_max_bytes
    most = " and ".join([*([f"{number} messages"] if number else []), *([_bytes(size)] if size else [])])
    return Policy(
        vhost=vhost,
        name="syncaroo-subscribers",
        pattern="^(?!syncaroo[.])",
        definition=_limits(size) | ({"max-length": number} if number else {}),
        story=f"a subscriber's queue holds at most {most}" if most else "subscribers' queues have no limit",
        is_operators=True,
    )


def _limits(size: int) -> dict[str, str | int]:
    return {"max-length-bytes": size} if size else {}


def _bytes(size: int) -> str:
    """`10 GB`, `1.5 MB`, `999 bytes`."""
    for unit, worth in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= worth:
            return f"{size / worth:.4g} {unit}"
    return f"{size} bytes"


def set_policy(amqp_url: str, management_url: str | None, policy: Policy) -> str:
    """Set it by the management API, else by rabbitmqctl of this machine → by which of them; empty: by none."""
    given = {} if management_url is None else {"AMQP_MANAGEMENT_URL": management_url}
    kind = "operator-policies" if policy.is_operators else "policies"
    path = f"/api/{kind}/{quote(policy.vhost, safe='')}/{policy.name}"
    body = {"pattern": policy.pattern, "definition": policy.definition, "apply-to": "queues"}
    try:
        management = admin_of(amqp_url, given)
        if policy.definition:
            management.call("PUT", path, body)
        else:
            management.call("DELETE", path)
    except VhostRefused:
        return "rabbitmqctl" if _by_ctl(amqp_url, policy) else ""
    return "the management API"


def _by_ctl(amqp_url: str, policy: Policy) -> bool:
    """Only for a broker on this machine's usual port: rabbitmqctl speaks to no other."""
    address = urlsplit(amqp_url)
    program = shutil.which("rabbitmqctl", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/opt/homebrew/sbin")
    if program is None or address.hostname not in _LOOPBACK or (address.port or 5672) != 5672:
        return False
    try:
        done = run_ctl(program, "-q", *policy.words)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 or "does not exist" in done.stderr
