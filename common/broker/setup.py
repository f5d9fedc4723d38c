"""Declares the topology on a broker, waiting for one that is not there yet, and says what stands in the way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import aio_pika
from aio_pika.exceptions import ChannelPreconditionFailed
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential

from common.broker.connection import CONNECT_SECONDS, bounded
from common.broker.topology import Queue, declare
from common.errors import BrokerUnavailable, Permanent

DECLARE_SECONDS = 30.0

_DIFFERENCE = re.compile(
    r"inequivalent arg '(?P<argument>[^']*)' for (?P<kind>\w+) '(?P<name>[^']*)'.*?"
    r"received (?P<wanted>.*?) but current is (?P<found>.*?)(?:\"|$)"
)


class TopologyDrift(Permanent):
    """The broker has something of one of our names that was declared otherwise; `detail` says what."""

    def __init__(self, detail: str) -> None:
        super().__init__("topology_drift", detail)


async def declare_topology(url: str, queues: Sequence[Queue], *, wait: float = 60.0) -> None:
    """Exchanges, these queues and their bindings; any number of times. Waits `wait` seconds for a broker.

    Raises:
        TopologyDrift: a queue or exchange exists with other arguments.
        BrokerUnavailable: no broker in that time; the text says why.
    """
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(BrokerUnavailable),
        wait=wait_exponential(multiplier=0.2, max=3),
        stop=stop_after_delay(wait),
        reraise=True,
    ):
        with attempt:
            await _declare(url, queues)


async def _declare(url: str, queues: Sequence[Queue]) -> None:
    # Not the robust connection: that one would declare again by itself what was just refused.
    connection = await bounded(aio_pika.connect(url, timeout=CONNECT_SECONDS), CONNECT_SECONDS + 1)
    try:
        channel: Any = await bounded(connection.channel(), CONNECT_SECONDS)
        await bounded(declare(channel, queues), DECLARE_SECONDS)
    except BrokerUnavailable as error:
        if isinstance(error.__cause__, ChannelPreconditionFailed):
            raise TopologyDrift(difference(str(error.__cause__))) from error
        raise
    finally:
        await bounded(connection.close(), 3)


def difference(answer: str) -> str:
    """The broker's words about arguments that differ, in ours."""
    match = _DIFFERENCE.search(answer)
    if match is None:
        return " ".join(answer.split())[:200]
    return (
        f"{match['kind']} {match['name']} exists with another {match['argument']} "
        f"(there: {_plain(match['found'])}, wanted: {_plain(match['wanted'])})"
    )


def _plain(value: str) -> str:
    """`the value '20' of type 'signedint'` → `20`."""
    quoted = re.search(r"value '([^']*)'", value)
    return quoted[1] if quoted else value.strip().rstrip(",").strip("'") or "none"
