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
    log: dict[str, str | int] = {
        "max-age": f"{max(1, round(settings.event_log_age.total_seconds()))}s",
        "max-length-bytes": settings.event_log_max_bytes,
        "stream-max-segment-size-bytes": SEGMENT_BYTES,
    }
    others = {
        "max-length": settings.subscriber_max_messages,
        "max-length-bytes": settings.subscriber_max_bytes,
    }
    kept, most = duration_name(settings.event_log_age), settings.subscriber_max_messages
    return [
        Policy(
            vhost=vhost,
            name="syncaroo-event-log",
            pattern=f"^{EVENT_LOG.replace('.', '[.]')}$",
            definition={name: value for name, value in log.items() if value},
            story=f"the event log keeps events for {kept}",
        ),
        Policy(
            vhost=vhost,
            name="syncaroo-subscribers",
            pattern="^(?!syncaroo[.])",
            definition={name: value for name, value in others.items() if value},
            story=f"a subscriber's queue holds at most {most} messages"
            if most
            else "subscribers' queues have no limit",
            is_operators=True,
        ),
    ]


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
    return done.returncode == 0 or not policy.definition  # to clear what is not there is refused
