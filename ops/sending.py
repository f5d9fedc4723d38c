"""Sending into a queue from a command: the store and the events' broker, opened for it, and its troubles in words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from common.broker.direct import NoSuchQueue, QueueFull, direct, look_at
from common.errors import BrokerUnavailable, GatewayError, Permanent, StoreUnavailable
from common.settings import BrokerSettings, EventBrokerSettings, SiteSettings, StoreSettings, load
from common.store.engine import Store
from common.store.schema import check_store
from ops.broker.broker import without_password
from ops.terminal import err
from workers.relay.snapshot_rules import check_queue
from workers.relay.snapshots import Open

LOOKS = 10
"""One a second: a stream counts its messages every 5 s only."""


def a_queue(name: str) -> str:
    """A queue's name that one may send into."""
    try:
        check_queue(name)
    except Permanent as error:
        raise typer.BadParameter(error.detail) from error
    return name


To = Annotated[str, typer.Option("--to", metavar="QUEUE", help="An existing queue of yours.", callback=a_queue)]


class NotSent(GatewayError):
    """It could not be sent, or not all of it; the text says why and what to do."""


@dataclass(frozen=True)
class Outlet:
    """What a command sends with."""

    store: Store
    open_way: Open
    source: str
    url: str

    def words(self, error: Exception, queue: str) -> str:
        """The trouble, and what to do about it."""
        where = without_password(self.url)
        if isinstance(error, NoSuchQueue):
            return (
                f"There is no queue {queue} at {where}. Declare it, bind it to syncaroo.events so that live events "
                "follow, then run this again."
            )
        if isinstance(error, QueueFull):
            return f"The {error}. Have it read, or let it be longer, then run this again."
        if isinstance(error, BrokerUnavailable):
            return f"EVENTS_AMQP_URL or AMQP_URL: no broker at {where} ({error}). Is it running?"
        if isinstance(error, StoreUnavailable):
            return f"DATABASE_URL: the database cannot be read ({error})."
        return str(error)

    async def must_be_there(self, queue: str) -> None:
        """Look for the queue before somebody is asked whether to send into it.

        Raises:
            NotSent: it is not there, or the broker is away.
        """
        try:
            await look_at(self.url, queue)
        except (NoSuchQueue, BrokerUnavailable) as error:
            raise NotSent(self.words(error, queue)) from error

    async def warn_of_loss(self, queue: str, sent: int) -> None:
        """Say so on stderr when fewer messages wait in the queue than were sent, and nobody has read them."""
        try:
            held = await self._held(queue, sent)
        except NoSuchQueue:
            err.print(f"The queue {queue} is gone, and what was sent with it.", markup=False)
            return
        except BrokerUnavailable:  # all was confirmed; there is nothing more to say
            return
        if held is not None:
            err.print(
                f"The queue {queue} holds {held} messages though {sent} were sent, and nobody reads it: it drops what "
                "is over its limit (its own, SUBSCRIBER_MAX_MESSAGES or SUBSCRIBER_MAX_BYTES). Have it read, then run "
                "this again.",
                markup=False,
            )

    async def _held(self, queue: str, sent: int) -> int | None:
        """How many messages wait in a queue that has lost some; None: nothing says that it has."""
        held = 0
        for _ in range(LOOKS):
            seen = await look_at(self.url, queue)
            if seen is None or seen.consumers or seen.messages >= sent:
                return None
            held = seen.messages
            await asyncio.sleep(1)
        return held


@asynccontextmanager
async def outlet() -> AsyncIterator[Outlet]:
    """From the settings, until the end of the block. Nothing connects to the broker yet.

    Raises:
        SettingsError: they are wrong, or the store belongs to another environment.
        NotSent: the store does not answer.
    """
    broker, events, store_settings, site = load(BrokerSettings, EventBrokerSettings, StoreSettings, SiteSettings)
    url = events.url(broker)
    store = Store(store_settings.database_url.get_secret_value())
    opened = Outlet(store, partial(direct, url), site.source, url)
    try:
        await check_store(store, {"EVENT_SOURCE": site.source})
        yield opened
    except StoreUnavailable as error:
        raise NotSent(opened.words(error, "")) from error
    finally:
        await store.close()
