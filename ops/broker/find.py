"""The order in which a broker is looked for, and the sentence when none can be had."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from ops.broker.broker import Broker, NoBroker, NotHere, Say, VhostRefused, without_password
from ops.broker.docker import in_docker
from ops.broker.install import install
from ops.broker.local import on_localhost, on_own_vhost
from ops.broker.node import PrivateNode, scripts
from ops.broker.probe import let_in
from ops.broker.vhosts import ByManagement


class Choice(Protocol):
    """One way to a broker. `name` is what virtual hosts and containers are called; raises NotHere with the reason."""

    def __call__(self, name: str, environment: Mapping[str, str], say: Say, plugins: Sequence[str], /) -> Broker: ...


def find(
    say: Say = lambda line: None,
    *,
    name: str = "gateway",
    environment: Mapping[str, str] | None = None,
    plugins: Sequence[str] = (),
    choices: Sequence[Choice] | None = None,
) -> Broker:
    """A broker to use: `AMQP_URL`, else localhost:5672, else Docker, else a private node.

    `AMQP_URL` (or `AMQP_URL_FILE`) is final: when it is set and nobody answers there, no other is tried. `plugins` are
    for a private node. Closing the result gives back everything made for it. Raises NoBroker with what to install.

    Call it from the main thread: a private node ends with the thread that started it.
    """
    environment = os.environ if environment is None else environment
    given = _given(environment)
    if given:
        return _at(given, name, environment, say)
    reasons: list[str] = []
    for choice in CHOICES if choices is None else choices:
        try:
            broker = choice(name, environment, say, plugins)
        except NotHere as error:
            reasons.append(str(error))
            say(f"Broker: {error}")
            continue
        say(broker.story)
        return broker
    raise NoBroker(
        "No RabbitMQ to work with. Set AMQP_URL, or start one on localhost:5672, or start Docker, or install one. "
        f"Tried: {'; '.join(reasons)}."
    )


def in_private_node(name: str, environment: Mapping[str, str], say: Say, plugins: Sequence[str]) -> Broker:
    """A node of our own as a child process, its package installed when missing and allowed. Raises NotHere."""
    try:
        scripts()
    except NotHere:
        install("rabbitmq-server", environment, say)
    say("Starting a private RabbitMQ (about 5 s) …")
    node = PrivateNode(plugins=plugins)
    try:
        node.start()
    except NotHere:
        node.close()
        raise
    return node.broker()


CHOICES: tuple[Choice, ...] = (on_localhost, in_docker, in_private_node)


def _given(environment: Mapping[str, str]) -> str:
    """What `AMQP_URL` says, or the file that `AMQP_URL_FILE` names."""
    if file := environment.get("AMQP_URL_FILE"):
        try:
            return Path(file).read_text().strip()
        except OSError as error:
            raise NoBroker("AMQP_URL_FILE names a file that cannot be read.") from error
    return environment.get("AMQP_URL", "").strip()


def _at(url: str, name: str, environment: Mapping[str, str], say: Say) -> Broker:
    """The broker of `AMQP_URL`: the virtual host it names, or one of our own where it names none or the default one."""
    try:
        let_in(url)
    except NotHere as error:
        raise NoBroker(f"AMQP_URL is set, but {error}.") from error
    admin = admin_of(url, environment)
    named = unquote(urlsplit(url).path.removeprefix("/")) not in ("", "/")
    shown = without_password(url)
    broker = Broker(url, "AMQP_URL", f"RabbitMQ of AMQP_URL: {shown}", admin, admin.base)
    if not named:
        try:
            broker = on_own_vhost(url, admin, name)
        except (NotHere, VhostRefused) as error:
            say(f"Broker: AMQP_URL's default virtual host is used as it is ({error})")
            broker.admin = broker.management = None
        else:
            broker.story = f"RabbitMQ of AMQP_URL: {shown}, in a virtual host of its own"
            broker.management = admin.base
    say(broker.story)
    return broker


def admin_of(url: str, environment: Mapping[str, str]) -> ByManagement:
    """The management API that belongs to an AMQP address: `AMQP_MANAGEMENT_URL`, else its host and user, port 15672."""
    parts = urlsplit(url)
    user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
    base = environment.get("AMQP_MANAGEMENT_URL") or f"http://{parts.hostname or 'localhost'}:15672"
    other = urlsplit(base)
    if other.username:
        user, password = unquote(other.username), unquote(other.password or "")
        base = other._replace(netloc=other.netloc.rpartition("@")[2]).geturl()
    return ByManagement(base, user, password, timeout=5.0)
