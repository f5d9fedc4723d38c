"""What checks look at: settings as far as they are right, the store, and brokers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, TypeVar

from common.broker.topology import Queue, event_queues, work_queues
from common.settings import (
    BrokerSettings,
    EventBrokerSettings,
    Loader,
    LogSettings,
    ManagementSettings,
    ProcessSettings,
    RetrySettings,
    SiteSettings,
    StoreSettings,
)
from common.store.engine import Store
from ingress.app import SECTIONS as INGRESS
from workers.__main__ import ROLES as WORKERS

Role = Literal["ingress", "token", "fetch", "reconcile", "relay", "all"]
ROLES: tuple[Role, ...] = ("ingress", "token", "fetch", "reconcile", "relay", "all")

S = TypeVar("S")


def sections_of(role: Role) -> tuple[type[Any], ...]:
    """The settings that a process of the role reads, and those of `gateway setup`."""
    found: list[type[Any]] = [LogSettings, ProcessSettings, ManagementSettings]
    if role in ("ingress", "all"):
        found += INGRESS
    for worker in WORKERS:
        if role in (worker, "all"):
            found += import_module(f"workers.{worker}.worker").SECTIONS
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Place:
    """A broker: the setting that names it, its address, and what of the topology is there."""

    setting: str
    url: str = field(repr=False)
    queues: Sequence[Queue]
    has_work: bool
    has_events: bool


class Around:
    """Everything that a check may look at; `site` is where our own addresses are asked instead of at SITE_URI."""

    def __init__(self, role: Role, site: str | None = None) -> None:
        loader = Loader()
        self.role = role
        self.sections = {section: value for section in sections_of(role) if (value := loader.read(section)) is not None}
        self.faults = sorted(set(loader.faults))
        self._site = site
        self._store: Store | None = None

    def has(self, section: type) -> bool:
        """Whether the role reads it, and it is right."""
        return section in self.sections

    def reads(self) -> tuple[type[Any], ...]:
        """The sections that are the role's, right or wrong."""
        return sections_of(self.role)

    def of(self, section: type[S]) -> S:
        """The section's values."""
        return self.sections[section]  # type: ignore[no-any-return]  # built by its own class, kept by it

    @property
    def site(self) -> str:
        """Where we are reached."""
        return (self._site or str(self.of(SiteSettings).site_uri)).rstrip("/")

    @property
    def store(self) -> Store:
        """The one store of all checks."""
        if self._store is None:
            self._store = Store(self.of(StoreSettings).database_url.get_secret_value())
        return self._store

    async def close(self) -> None:
        """Let go of the store."""
        if self._store is not None:
            await self._store.close()

    def places(self) -> list[Place]:
        """The broker, or both."""
        broker = self.of(BrokerSettings)
        work_url = broker.amqp_url.get_secret_value()
        events_url = self.of(EventBrokerSettings).url(broker) if self.has(EventBrokerSettings) else work_url
        work = work_queues(self.of(RetrySettings).retry_delays if self.has(RetrySettings) else ())
        if work_url == events_url:
            return [Place("AMQP_URL", work_url, [*work, *event_queues()], has_work=True, has_events=True)]
        return [
            Place("AMQP_URL", work_url, work, has_work=True, has_events=False),
            Place("EVENTS_AMQP_URL", events_url, event_queues(), has_work=False, has_events=True),
        ]
