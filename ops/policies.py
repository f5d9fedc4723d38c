"""The broker's policies: ages and lengths, which may change while queues live (their arguments may not).

One today: how long the event log keeps events. Only disk use depends on it, so `setup` goes on without.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote, unquote, urlsplit

from common.broker.topology import EVENT_LOG
from common.codec import dumps
from ops.broker.broker import VhostRefused
from ops.broker.find import admin_of
from ops.broker.local import run_ctl

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Policy:
    """A policy of one virtual host; `definition` as RabbitMQ names its members."""

    vhost: str
    name: str
    pattern: str
    definition: dict[str, str]

    @property
    def command(self) -> str:
        """What a person runs instead of us."""
        definition = dumps(self.definition).decode()
        return f"rabbitmqctl -p '{self.vhost}' set_policy --apply-to queues {self.name} '{self.pattern}' '{definition}'"


def event_log_policy(amqp_url: str, age: timedelta) -> Policy:
    """Events older than `age` leave the log."""
    return Policy(
        vhost=unquote(urlsplit(amqp_url).path.removeprefix("/")) or "/",
        name="syncaroo-event-log",
        pattern=f"^{EVENT_LOG.replace('.', '[.]')}$",
        definition={"max-age": f"{max(1, round(age.total_seconds()))}s"},
    )


def set_policy(amqp_url: str, management_url: str | None, policy: Policy) -> str:
    """Set it by the management API, else by rabbitmqctl of this machine → by which of them; empty: by none."""
    given = {} if management_url is None else {"AMQP_MANAGEMENT_URL": management_url}
    path = f"/api/policies/{quote(policy.vhost, safe='')}/{policy.name}"
    body = {"pattern": policy.pattern, "definition": policy.definition, "apply-to": "queues"}
    try:
        admin_of(amqp_url, given).call("PUT", path, body)
    except VhostRefused:
        return "rabbitmqctl" if _by_ctl(amqp_url, policy) else ""
    return "the management API"


def _by_ctl(amqp_url: str, policy: Policy) -> bool:
    """Only for a broker on this machine's usual port: rabbitmqctl speaks to no other."""
    address = urlsplit(amqp_url)
    program = shutil.which("rabbitmqctl", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/opt/homebrew/sbin")
    if program is None or address.hostname not in _LOOPBACK or (address.port or 5672) != 5672:
        return False
    words = ["-q", "-p", policy.vhost, "set_policy", "--apply-to", "queues", policy.name, policy.pattern]
    try:
        return run_ctl(program, *words, dumps(policy.definition).decode()).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
