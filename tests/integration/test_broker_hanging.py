"""T-HANG, on a real broker: a handler that does not come back has its limit, and costs nobody else anything."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from common.broker import consumer as consuming
from common.broker.consumer import Delivery
from common.broker.metrics import BrokerMetrics
from common.broker.topology import shard_key
from common.store.engine import Store
from common.store.parked import Parked, park
from ops.broker import Vhost
from schemas.tables import ParkedRow, table_of
from tests.integration.test_broker_reconsume import seen, send
from tests.integration.test_broker_traps import Recorder, bench
from tests.waiting import until, within

QUEUE = "syncaroo.reconcile"
SHORT = 0.3
LONG = 60.0


class Hangs(Recorder):
    """With the message of this name it waits for ever; it does the others, one at a time as they were given."""

    def __init__(self, name: str = "hangs") -> None:
        super().__init__()
        self.name = name
        self.tried: list[Delivery] = []

    async def __call__(self, deliveries: Sequence[Delivery]) -> None:
        if found := [one for one in deliveries if self.name.encode() in one.body]:
            self.tried += found
            await self.wait()
        await super().__call__(deliveries)

    async def wait(self) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def told() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as lines:
        yield lines


async def test_a_message_whose_handler_hangs_is_tried_again_and_parked_in_the_end(
    vhost: Vhost, told: list[MutableMapping[str, Any]]
) -> None:
    """Its neighbours in the batch pass; a person is told where it hung, and its reason goes with it."""
    async with bench(vhost.url) as made:
        for name in ("first", "hangs", "last"):
            await send(made, name)
        handler, metrics = Hangs(), BrokerMetrics()
        made.consume(handler, batch=3, seconds=SHORT, metrics=metrics)
        dead = await made.channel.get_queue(f"{QUEUE}.dead")
        parked = await until(lambda: dead.get(fail=False), 20, "the dead letter")
        assert (parked.headers["reason"], parked.headers["detail"]) == ("retries_exhausted", "HandlerHung")
        await parked.ack()
        assert [one.attempt for one in handler.tried if one.attempt] == [1, 2], "each time by way of a delay queue"
        assert sorted(seen(handler)) == ["first", "last"]
        hung = [line for line in told if line["event"] == "handler.hung"]
        assert len(hung) == len(handler.tried)
        assert hung[-1]["messages"] == 1
        frames = []
        step = hung[-1]["exc_info"].__traceback__
        while step is not None:
            frames.append(step.tb_frame.f_code.co_qualname)
            step = step.tb_next
        assert "Hangs.wait" in frames
        assert metrics.hung.labels(QUEUE)._value.get() == len(hung)
        assert await made.waiting(QUEUE) == 0


async def test_of_a_batch_that_hangs_each_is_settled_before_the_broker_takes_it_away(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch, told: list[MutableMapping[str, Any]]
) -> None:
    """B3: what would have to wait too long, for the others, goes to the end of its queue."""
    monkeypatch.setattr(consuming, "END_SECONDS", 0.1)
    monkeypatch.setattr(consuming, "ACK_SECONDS", 1.0)
    names = ["hangs 1", "hangs 2", "hangs 3"]
    async with bench(vhost.url) as made:
        for name in names:
            await send(made, name)
        handler = Hangs()
        made.consume(handler, batch=3, seconds=SHORT)
        await until(lambda: _dead(made, len(names)), 30, "all are parked, and none is lost")
    assert shard_key("reconcile", 99) in [line["to"] for line in told if line["event"] == "consumer.moved"]


async def test_a_handler_that_hangs_in_a_transaction_leaves_nothing_of_it(vhost: Vhost, database_url: str) -> None:
    """And holds no lock: what comes next writes."""
    store = Store(database_url)
    tries: list[str] = []

    async def write(deliveries: Sequence[Delivery]) -> None:
        async with store.transaction() as transaction:
            await park(transaction, [_row(f"row of try {len(tries)}")])
            tries.append("hangs" if not tries else "passes")
            if len(tries) == 1:
                await asyncio.Event().wait()

    async with bench(vhost.url) as made:
        await send(made, "once")
        made.consume(write, seconds=2.0)
        await until(lambda: tries == ["hangs", "passes"], 20)
        await until(lambda: _written(store, ["row of try 1"]))
        assert len(await _reasons(store)) == 1
    await store.close()


async def test_a_handler_that_does_not_hear_that_it_is_over_is_left_behind(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch, told: list[MutableMapping[str, Any]]
) -> None:
    """As one whose rollback does not come back."""
    monkeypatch.setattr(consuming, "END_SECONDS", 0.1)
    go_on = asyncio.Event()

    class Deaf(Hangs):
        async def wait(self) -> None:
            while not go_on.is_set():
                try:
                    await go_on.wait()
                except asyncio.CancelledError:
                    continue

    async with bench(vhost.url) as made:
        await send(made, "hangs")
        handler = Deaf()
        made.consume(handler, seconds=SHORT)
        await until(lambda: handler.tried)
        await send(made, "behind it")
        await until(lambda: "behind it" in seen(handler))
        await until(lambda: len(handler.tried) == 2, what="another try")
        assert [line["exc_info"] for line in told if line["event"] == "handler.hung"][:1] == [None]
        go_on.set()
        await until(lambda: not consuming._left)


async def test_a_handler_that_is_cancelled_from_within_costs_its_message_a_try_and_nothing_else(vhost: Vhost) -> None:
    """P5: libraries cancel who waits for them."""

    class Cancelled(Hangs):
        async def wait(self) -> None:
            if len(self.tried) == 1:
                raise asyncio.CancelledError
            self.name = "nobody"

    async with bench(vhost.url) as made:
        await send(made, "hangs")
        handler = Cancelled()
        running = made.consume(handler)
        await until(lambda: seen(handler) == ["hangs"])
        assert [one.attempt for one in handler.tried] == [0, 1]
        assert not running.done()


async def test_what_hangs_is_not_settled_when_its_consumer_is_cancelled(vhost: Vhost) -> None:
    """P8: no limit of ours swallows the cancellation."""
    async with bench(vhost.url) as made:
        await send(made, "hangs")
        handler = Hangs()
        running = made.consume(handler, seconds=LONG)
        await until(lambda: handler.tried)
        running.cancel()
        async with within(5):
            await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()
        made._tasks.clear()
        await until(lambda: _all_wait(made), what="the broker has it again")
        assert await made.waiting(f"{QUEUE}.dead") == 0


async def _dead(made: Any, count: int) -> bool:
    return bool(await made.waiting(f"{QUEUE}.dead") == count)


async def _all_wait(made: Any) -> bool:
    return bool(await made.waiting(QUEUE) == 1)


def _row(reason: str) -> Parked:
    return Parked(
        queue=QUEUE, reason=reason, connection_id=99, routing_key="reconcile.99", schema_name="", body=b"{}", attempts=0
    )


async def _reasons(store: Store) -> list[str]:
    async with store.reading() as transaction:
        return [row.reason for row in await transaction.rows(select(table_of(ParkedRow)))]


async def _written(store: Store, reasons: list[str]) -> bool:
    return await _reasons(store) == reasons
