"""Who may do what on the broker: one user per role, with the rights that its work needs and no others. Pure.

`gateway init` writes them as definitions, which RabbitMQ loads when it starts. What AMQP asks: to consume is to read
the queue; to publish is to write to the exchange, and on a topic exchange its key must be allowed; to declare is to
configure what is declared; to bind is to write to the queue and read the exchange; to look whether a queue is there
needs nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.broker.topology import EVENT_LOG, EVENT_STAGES, EVENTS, LOG, RELAY_POKE, STAGES, WORK, Stage, queue_name

VHOST = "gateway"
"""Ours alone: the limit on subscribers' queues is a policy of the whole virtual host."""
SALT_BYTES = 4

NOTHING = "^$"
NEW_QUEUE = "^amq_[0-9a-f]{32}$"
"""What the library calls a queue that lives as long as its connection."""
DEFAULT_EXCHANGE = "amq[.]default"
"""As a right RabbitMQ calls the exchange without a name so."""


@dataclass(frozen=True)
class User:
    """A user's rights in the virtual host, as regular expressions of names; `topics`: per exchange, of routing keys."""

    name: str
    configure: str = NOTHING
    write: str = NOTHING
    read: str = NOTHING
    topics: Mapping[str, tuple[str, str]] | None = None
    """(write, read); an exchange that is not named is not limited by keys."""
    tags: tuple[str, ...] = ()


def users() -> tuple[User, ...]:
    """Everybody whom the broker knows after `gateway init`."""
    return (_setup(), _ingress(), _worker("token"), _fetch(), _reconcile(), _relay(), _operator())


def _setup() -> User:
    # Dead-lettering is checked when a queue is declared: it reads the queue and writes to the exchange. Publishing
    # needs a routing key besides, and there is none for it.
    ours = r"^syncaroo[.].+$"
    keys = dict.fromkeys((WORK, EVENTS, LOG), (NOTHING, "^.*$"))
    # Operator policies, which limit what subscribers' queues hold, are an administrator's.
    return User("setup", configure=ours, write=ours, read=ours, topics=keys, tags=("administrator",))


def _ingress() -> User:
    # Replaying what was parked sends it to its stage again, whichever that is.
    stages = "|".join((*STAGES, *EVENT_STAGES))
    return User("ingress", write=_one(WORK), topics={WORK: (rf"^(({stages})[.][0-9]+|dead[.]fetch)$", NOTHING)})


def _worker(stage: Stage, *more_keys: str) -> User:
    keys = "|".join((*_keys(stage), *more_keys))
    return User(stage, write=_one(WORK), read=_queues(stage), topics={WORK: (f"^({keys})$", NOTHING)})


def _fetch() -> User:
    return _worker("fetch", "reconcile[.][0-9]+")


def _reconcile() -> User:
    return _worker("reconcile", _name(RELAY_POKE))


def _relay() -> User:
    # Snapshots go into the queue of whoever asked, by its name: that is the default exchange, which leads to every
    # queue of the virtual host. The relay alone has it. It may read the log, too, for `gateway tail`.
    exchanges = "|".join(map(_name, (WORK, EVENTS, LOG)))
    own = NEW_QUEUE.strip("^$")
    poke = f"^{_name(RELAY_POKE)}$"
    return User(
        "relay",
        configure=NEW_QUEUE,
        write=f"^({exchanges}|{DEFAULT_EXCHANGE}|{own})$",
        read=f"^({_name(WORK)}|{own}|{_name(EVENT_LOG)}|{_queues('snapshot').strip('^$')})$",
        topics={WORK: (f"^({'|'.join(_keys('snapshot'))})$", poke)},
    )


def _operator() -> User:
    # For people and Prometheus: sees everything in the management UI, changes nothing, reads no message.
    return User("operator", tags=("monitoring",))


def _keys(stage: Stage) -> Sequence[str]:
    """What a stage sends itself: what follows, what is to be tried again, and what it cannot process."""
    return (f"{stage}[.]([0-9]+|retry)", f"delay[.]{stage}[.][0-9a-z]+", f"dead[.]{stage}")


def _queues(stage: Stage) -> str:
    return f"^{_name(queue_name(stage))}([.]dead)?$"


def _one(name: str) -> str:
    return f"^{_name(name)}$"


def _name(name: str) -> str:
    return name.replace(".", "[.]")


def definitions(passwords: Mapping[str, str], before: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What RabbitMQ loads: the virtual host, the users with these passwords (by name), and their rights.

    `before`: hashes by user's name; one that fits its password is kept, so that nothing changes for nothing.
    """
    everybody = users()
    return {
        "vhosts": [{"name": VHOST}],
        "users": [_user(one, passwords[one.name], (before or {}).get(one.name)) for one in everybody],
        "permissions": [
            {"user": one.name, "vhost": VHOST, "configure": one.configure, "write": one.write, "read": one.read}
            for one in everybody
        ],
        "topic_permissions": [
            {"user": one.name, "vhost": VHOST, "exchange": exchange, "write": write, "read": read}
            for one in everybody
            for exchange, (write, read) in (one.topics or {}).items()
        ],
    }


def _user(user: User, password: str, before: str | None) -> dict[str, Any]:
    kept = before if before is not None and is_hash_of(before, password) else hashed(password, os.urandom(SALT_BYTES))
    return {
        "name": user.name,
        "password_hash": kept,
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": list(user.tags),
    }


def hashed(password: str, salt: bytes) -> str:
    """RabbitMQ's format: base64 of the salt and of SHA-256 over salt and password."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def is_hash_of(found: str, password: str) -> bool:
    """Whether the hash is that password's."""
    try:
        salt = base64.b64decode(found, validate=True)[:SALT_BYTES]
    except ValueError:
        return False
    return hmac.compare_digest(hashed(password, salt), found)
