"""`gateway setup`: the store gets its schema, the broker its topology and policies. Any number of times."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential

from common.broker.setup import TopologyDrift, declare_topology
from common.broker.topology import Queue, event_queues, work_queues
from common.errors import BrokerUnavailable, GatewayError, StoreUnavailable
from common.settings import (
    BrokerSettings,
    EventBrokerSettings,
    ManagementSettings,
    RetrySettings,
    StoreSettings,
    load,
)
from common.store.schema import head_revision
from ops.broker.broker import without_password
from ops.migrating import upgrade
from ops.policies import event_policies, set_policy
from ops.terminal import out

EPILOG = "Example: [bold]AMQP_URL=amqp://guest:guest@localhost gateway setup[/bold]"


class SetupFailed(GatewayError):
    """Something did not come up in time, or stands in the way; the text says what to do."""


def setup(
    wait: Annotated[float, typer.Option(help="Seconds to wait for the broker and for the database.")] = 60.0,
) -> None:
    """Migrate the store, declare the topology, set policies. Needs AMQP_URL; may be run at any time, also twice."""
    broker, events, management, store, retry = load(
        BrokerSettings, EventBrokerSettings, ManagementSettings, StoreSettings, RetrySettings
    )
    work_url = broker.amqp_url.get_secret_value()
    events_url = events.url(broker)
    asyncio.run(_store(store.database_url.get_secret_value(), wait))
    asyncio.run(_brokers(work_url, events_url, work_queues(retry.retry_delays), wait))
    _policies(events_url, management)


async def _store(url: str, wait: float) -> None:
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(StoreUnavailable),
            wait=wait_exponential(multiplier=0.2, max=3),
            stop=stop_after_delay(wait),
            reraise=True,
        ):
            with attempt:
                await upgrade(url)
    except StoreUnavailable as error:
        raise SetupFailed(f"DATABASE_URL: no database within {wait:g} s ({error}). Is it running?") from error
    out.print(f"store: schema {head_revision()}")


async def _brokers(work_url: str, events_url: str, work: list[Queue], wait: float) -> None:
    """Where events have a broker of their own, each gets its part."""
    if work_url == events_url:
        await _declare("AMQP_URL", work_url, [*work, *event_queues()], wait)
        return
    await _declare("AMQP_URL", work_url, work, wait)
    await _declare("EVENTS_AMQP_URL", events_url, event_queues(), wait)


async def _declare(name: str, url: str, queues: list[Queue], wait: float) -> None:
    try:
        await declare_topology(url, queues, wait=wait)
    except TopologyDrift as error:
        raise SetupFailed(
            f"{name}: {error.detail}. Let it run empty and delete it (rabbitmqctl delete_queue), or name another "
            "virtual host; then run gateway setup again."
        ) from error
    except BrokerUnavailable as error:
        raise SetupFailed(
            f"{name}: no broker at {without_password(url)} within {wait:g} s ({error}). Is it running, and do user, "
            "password and virtual host exist?"
        ) from error
    out.print(f"broker: {len(queues)} queues at {without_password(url)}", markup=False)


def _policies(events_url: str, management: ManagementSettings) -> None:
    given = management.amqp_management_url
    url = None if given is None else given.get_secret_value()
    for policy in event_policies(events_url, management):
        if by := set_policy(events_url, url, policy):
            out.print(f"policy: {policy.story}, set by {by}", markup=False)
            continue
        out.print(
            "policy: not set, as neither AMQP_MANAGEMENT_URL nor rabbitmqctl lets us; only disk use depends on it:"
        )
        out.print(f"  {policy.command}", markup=False)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=EPILOG)(setup)
