"""The depth of a queue, as claims ask it: what is ready in it, and an error for a queue that is not there."""

from __future__ import annotations

import pytest

from common.broker.outgoing import outgoing
from common.errors import BrokerUnavailable
from ops.broker import Vhost
from tests.integration.test_broker_traps import bench, webhook
from tests.waiting import until


async def test_the_depth_of_a_queue_is_what_is_ready_in_it(vhost: Vhost) -> None:
    async with bench(vhost.url) as run:
        assert await run.publisher.depth("syncaroo.reconcile") == 0
        for name in ("first", "second", "third"):
            await run.publisher.publish(outgoing(webhook(name), "reconcile", 99))

        async def three() -> bool:
            return await run.publisher.depth("syncaroo.reconcile") == 3

        await until(three)
        with pytest.raises(BrokerUnavailable):
            await run.publisher.depth("syncaroo.missing")
        assert await run.publisher.depth("syncaroo.reconcile") == 3, "the connection lives on"
