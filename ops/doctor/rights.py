"""What a role's user must be allowed at the broker. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.broker.topology import DIRECT, EVENT_STAGES, EVENTS, LOG, STAGES, WORK, queue_name
from ops.doctor.around import Place, Role

Verb = Literal["read", "write"]
DEFAULT_EXCHANGE = "amq.default"
"""How rights name AMQP's default exchange."""


@dataclass(frozen=True)
class Right:
    """To read a queue, or to write to an exchange."""

    verb: Verb
    name: str

    @property
    def words(self) -> str:
        """`write to syncaroo.work`."""
        return f"write to {self.name or DEFAULT_EXCHANGE}" if self.verb == "write" else f"read {self.name}"


def rights_of(role: Role, place: Place) -> list[Right]:
    """What the role does at that broker."""
    found: list[Right] = []
    if (place.has_work and role != "relay") or (place.has_events and role in ("ingress", "relay", "all")):
        found.append(Right("write", WORK))
    if place.has_work:
        found += [right for stage in STAGES if role in (stage, "all") for right in _reads(queue_name(stage))]
    if place.has_events and role in ("relay", "all"):
        found += [Right("write", name) for name in (EVENTS, LOG, DIRECT)]
        found += [right for stage in EVENT_STAGES for right in _reads(queue_name(stage))]
    return found


def listens(role: Role, place: Place) -> bool:
    """Whether the role is woken through a queue of its own there, that the broker names."""
    return place.has_work and role in ("relay", "all")


def _reads(queue: str) -> list[Right]:
    return [Right("read", queue), Right("read", f"{queue}.dead")]
