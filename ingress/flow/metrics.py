"""The numbers of the flow for `/metrics`: read at most every 10 s, never waited for longer than 2 s."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from common.broker.topology import work_queues
from common.clock import Monotonic
from common.errors import BrokerUnavailable, StoreUnavailable
from common.logs import get_logger
from common.process import first_of
from ingress.flow.flow import Flow, Targets, Waiting

FRESH_SECONDS = 10.0
STALE_SECONDS = 60.0
LOOK_SECONDS = 2.0
QUEUES = tuple(queue.name for queue in work_queues([]))
GRANT_STATES = ("none", "active", "needs_authorisation")

log = get_logger(__name__)
T = TypeVar("T")


class ReadsFlow(Protocol):
    """What is needed of the store."""

    async def read(self) -> Flow:
        """All numbers; raises StoreUnavailable."""


class ReadsDepths(Protocol):
    """What is needed of the broker."""

    async def depths(self, queues: Sequence[str], *, seconds: float = 2.0) -> dict[str, int]:
        """How many messages are ready in each; raises BrokerUnavailable."""


class Snapshot(Generic[T]):
    """The latest answer of something that may be away or slow: one question at a time, and nobody waits for long."""

    def __init__(self, ask: Callable[[], Awaitable[T]], clock: Monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._asking: asyncio.Task[None] | None = None
        self._value: T | None = None
        self._at = float("-inf")
        self._told = False

    @property
    def value(self) -> T | None:
        """The answer, if it is not too old; None: there is none."""
        return self._value if self._clock() - self._at <= STALE_SECONDS else None

    async def refresh(self) -> None:
        """Ask again if the answer is older than 10 s; an answer that takes longer than 2 s is for the next look."""
        if self._asking is None or self._asking.done():
            if self._clock() - self._at <= FRESH_SECONDS:
                return
            self._asking = asyncio.create_task(self._answer())
        await first_of(self._asking, seconds=LOOK_SECONDS)

    async def _answer(self) -> None:
        try:
            self._value, self._told = await self._ask(), False
        except (StoreUnavailable, BrokerUnavailable):
            self._value = None
        except Exception:
            # Such as a store that has another schema: the process's own numbers are shown all the same.
            if not self._told:
                log.exception("metrics.not_read")
            self._value, self._told = None, True
        self._at = self._clock()


class FlowMetrics(Collector):
    """Shows the flow on a registry. Where store or broker are away, their numbers are not there, and the gauge that
    says so is 0."""

    def __init__(self, store: ReadsFlow, broker: ReadsDepths, clock: Monotonic) -> None:
        self._flow = Snapshot(store.read, clock)
        self._depths = Snapshot(lambda: broker.depths(QUEUES), clock)

    async def look(self) -> None:
        """Bring the numbers up to date, as far as that goes in 2 s."""
        await asyncio.gather(self._flow.refresh(), self._depths.refresh())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families as they were last seen."""
        flow, depths = self._flow.value, self._depths.value
        yield _gauge("gateway_store_up", "1 when the store answered the last look.", float(flow is not None))
        yield _gauge("gateway_broker_up", "1 when the broker answered the last look.", float(depths is not None))
        if depths is not None:
            yield _family("gateway_queue_messages", "Messages that wait in a queue.", "queue", depths)
        if flow is not None:
            yield from families(flow)


def families(flow: Flow) -> Iterator[GaugeMetricFamily]:
    """What is shown of the flow. Pure."""
    yield from _targets(flow.targets)
    yield from _waiting("gateway_events_unpublished", "Events that wait to be published", {"": flow.events.unpublished})
    yield _gauge("gateway_listings", "Listings that are there.", flow.listings)
    yield from _parked(flow)
    yield _gauge("gateway_held_listings", "Listings whose deletion a person has to decide.", flow.held.count)
    yield from _grant(flow)
    yield _family("gateway_connections", "Connections by state.", "state", flow.connections)
    yield from _silence(flow)
    yield from _budgets(flow)


def _targets(targets: Targets) -> Iterator[GaugeMetricFamily]:
    kinds = {"webhook": targets.webhook, "resync": targets.resync, "put_off": targets.put_off}
    yield from _waiting("gateway_targets_due", "Targets to be fetched, by what wants them", kinds, "kind")


def _waiting(
    name: str, what: str, waiting: Mapping[str, Waiting], label: str | None = None
) -> Iterator[GaugeMetricFamily]:
    labels = [label] if label else []
    counts = GaugeMetricFamily(name, f"{what}.", labels=labels)
    ages = GaugeMetricFamily(
        f"{name}_oldest_seconds", f"{what}: the age of the oldest; 0: none, or not known.", labels=labels
    )
    for kind, one in waiting.items():
        counts.add_metric([kind] if label else [], one.count)
        ages.add_metric([kind] if label else [], one.oldest_seconds or 0.0)
    yield counts
    yield ages


def _parked(flow: Flow) -> Iterator[GaugeMetricFamily]:
    labels = ["queue", "reason"]
    counts = GaugeMetricFamily("gateway_parked_messages", "Parked messages by queue and reason.", labels=labels)
    ages = GaugeMetricFamily("gateway_parked_oldest_seconds", "The age of the oldest parked message.", labels=labels)
    for one in flow.parked:
        counts.add_metric([one.queue, one.reason], one.count)
        ages.add_metric([one.queue, one.reason], one.oldest_seconds)
    yield counts
    yield ages


def _grant(flow: Flow) -> Iterator[GaugeMetricFamily]:
    grant = flow.grant
    states = {state: float(grant.state == state) for state in GRANT_STATES}
    yield _family("gateway_grant_state", "1 for the state of our access to Syncaroo.", "state", states)
    yield _gauge("gateway_grant_failed_refreshes", "Refreshes that failed since the last success.", grant.attempts)
    if grant.expires_in_seconds is not None:
        what = "Time until the access token expires; negative: it has."
        yield _gauge("gateway_grant_expires_in_seconds", what, grant.expires_in_seconds)
    if grant.refresh_in_seconds is not None:
        what = "Time until the next refresh is due; negative: it is late."
        yield _gauge("gateway_grant_refresh_in_seconds", what, grant.refresh_in_seconds)


def _silence(flow: Flow) -> Iterator[GaugeMetricFamily]:
    silence = flow.silence
    what = "Time since a connection's latest webhook; the hundred that are quiet for longest."
    yield _family("gateway_connection_silence_seconds", what, "connection", silence.by_connection)
    what = "Connections that are quiet for longer than is usual with them."
    yield _gauge("gateway_connections_silent", what, silence.unusual)


def _budgets(flow: Flow) -> Iterator[GaugeMetricFamily]:
    blocked = {host: one.blocked_seconds for host, one in flow.budgets.items()}
    what = "For how long nobody calls an API host, as it asked for."
    yield _family("gateway_api_blocked_seconds", what, "host", blocked)
    tokens = {host: one.tokens for host, one in flow.budgets.items()}
    yield _family("gateway_api_budget_calls", "Calls left of an API host, when it was last called.", "host", tokens)


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, value=value)


def _family(name: str, what: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, what, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
