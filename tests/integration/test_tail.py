"""`gateway tail` on a real broker: from where it is told, without a gap and without a duplicate."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aiormq.exceptions import ChannelNotFoundEntity

from common.broker.outgoing import Outgoing
from common.broker.publisher import Publisher
from common.broker.topology import EVENT_LOG, EVENTS, declare, event_queues
from common.clock import utc_now
from common.codec import loads
from ops.broker import PrivateNode, Vhost
from ops.broker.broker import on_vhost
from ops.prove.proxy import Mode, Proxy
from ops.tail.stream import EventLog, Logged
from schemas.events import GrantChanged
from tests.events import Told, published, wire
from tests.programs import program
from tests.waiting import until

READING = f"reading {EVENT_LOG}, Ctrl-C ends"
GATEWAY = Path(sys.executable).parent / "gateway"


@asynccontextmanager
async def publishing(url: str) -> AsyncIterator[Publisher]:
    connection = await aio_pika.connect(url)
    async with connection:
        await declare(await connection.channel(), event_queues())
    publisher = Publisher(url, "test")
    publisher.start()
    await publisher.wait_ready()
    try:
        yield publisher
    finally:
        await publisher.close()


def tail(url: str, *words: str) -> Any:
    environment = {"AMQP_URL": "amqp://elsewhere.invalid", "EVENTS_AMQP_URL": url, "TERM": "xterm"}
    return program([str(GATEWAY), "tail", *words], environment)


async def run(url: str, *words: str) -> tuple[int, list[str]]:
    async with tail(url, *words) as ended:
        return await ended.wait(), ended.lines


def ids(lines: Sequence[str]) -> list[str]:
    return [loads(line.encode())["id"] for line in lines if line.startswith("{")]


def sent(messages: Sequence[Outgoing]) -> list[str]:
    return [str(message.message_id) for message in messages]


async def publish(publisher: Publisher, messages: Sequence[Outgoing]) -> None:
    for message in messages:
        await publisher.publish(message)


async def test_what_is_there_is_printed_and_it_ends(vhost: Vhost) -> None:
    told = Told()
    messages = [told.put("1", Name="Aula", n=1), told.put("1", Name="Aula", n=2), told.put("2"), told.gone("1")]
    messages.append(wire(GrantChanged(state="active")))
    async with publishing(vhost.url) as publisher:
        await publish(publisher, messages)

    assert await run(vhost.url, "--no-follow", "--json") == (0, [message.body.decode() for message in messages])

    code, lines = await run(vhost.url, "--no-follow", "--change", "updated", "--listing", "99/resources/1")
    assert (code, [line[11:] for line in lines[1:]]) == (
        0,
        ["99/resources/1  updated  v2  “Aula”  webhook, location 1198, resource 1", "n  1 → 2"],
    )
    assert "\x1b" not in "".join(lines), "no colours but on a terminal"
    assert await run(vhost.url, "--no-follow", "--connection", "7") == (0, [])


async def test_since_leaves_out_what_happened_before(vhost: Vhost) -> None:
    """A chunk of the stream holds older ones, too: the event's own time decides."""
    now = utc_now()
    told = Told()
    ages = [timedelta(hours=3), timedelta(hours=1), timedelta(minutes=5)]
    messages = [wire(told.change("1", {"n": number}), now - age) for number, age in enumerate(ages)]
    async with publishing(vhost.url) as publisher:
        await asyncio.gather(*map(publisher.publish, messages))

    for since, expected in (
        ("2h", messages[1:]),
        ("10m", messages[2:]),
        ("1d", messages),
        ("99999d", messages),
        ("1s", []),
    ):
        code, lines = await run(vhost.url, "--no-follow", "--json", "--since", since)
        assert (code, set(ids(lines))) == (0, set(sent(expected))), since
    code, lines = await run(
        vhost.url, "--json", "--since", f"{now - timedelta(hours=2):%Y-%m-%dT%H:%MZ}", "--limit", "2"
    )
    assert (code, set(ids(lines))) == (0, set(sent(messages[1:])))


async def test_it_ends_where_nothing_has_happened_since(vhost: Vhost) -> None:
    """The log's last message is older than the time asked for: the broker waits for the next one."""
    tomorrow = f"{utc_now() + timedelta(days=1):%Y-%m-%dT%H:%MZ}"
    async with publishing(vhost.url) as publisher:
        await publish(publisher, [Told().put("1", n=1)])
    assert await run(vhost.url, "--no-follow", "--json", "--since", tomorrow) == (0, [])


async def test_an_empty_log_is_at_its_end(vhost: Vhost) -> None:
    async with publishing(vhost.url):
        assert await run(vhost.url, "--no-follow", "--json") == (0, [])


@pytest.mark.parametrize("before", [0, 3])
async def test_only_what_comes_after_a_lost_connection_too(vhost: Vhost, before: int) -> None:
    """Nothing that was there, and no gap and no duplicate though connections are reset before and after the first."""
    told = Told()
    async with publishing(vhost.url) as publisher, Proxy.before(vhost.url) as proxy:
        await publish(publisher, [told.put("old", n=number) for number in range(before)])
        async with tail(proxy.url(vhost.url), "--json") as tailing:
            await until(lambda: READING in tailing.lines, what="subscribed")
            proxy.mode = Mode.RESET
            messages = [told.put("1", n=number) for number in range(20)]
            await publish(publisher, messages[:5])
            proxy.mode = Mode.PASS
            await until(lambda: len(ids(tailing.lines)) == 5, what="what came while it was away")
            for number in range(5, 20):
                if number % 5 == 0:
                    proxy.mode = Mode.RESET
                    proxy.mode = Mode.PASS
                await publish(publisher, [messages[number]])
            await until(lambda: len(ids(tailing.lines)) >= 20, what="all")

            assert ids(tailing.lines) == sent(messages)
            assert "connected again, going on where it was" in tailing.lines


async def test_ctrl_c_ends_it_quietly(vhost: Vhost) -> None:
    async with publishing(vhost.url), tail(vhost.url) as tailing:
        await until(lambda: READING in tailing.lines, what="subscribed")
        tailing.signal(signal.SIGINT)

        assert (await tailing.wait(), tailing.lines) == (130, [READING])


async def test_without_a_log_it_says_what_to_do_and_declares_nothing(vhost: Vhost) -> None:
    code, lines = await run(vhost.url)

    assert code == 1
    (line,) = lines
    assert line.startswith(f"There is no {EVENT_LOG} at amqp://")
    assert line.endswith("run gateway setup, which declares it.")
    connection = await aio_pika.connect(vhost.url)
    async with connection:
        with pytest.raises(ChannelNotFoundEntity):
            await (await connection.channel()).get_queue(EVENT_LOG)
        with pytest.raises(ChannelNotFoundEntity):
            await (await connection.channel()).get_exchange(EVENTS)


async def test_a_queue_of_that_name_that_is_no_stream_is_left_as_it_was(vhost: Vhost) -> None:
    connection = await aio_pika.connect(vhost.url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(EVENT_LOG, durable=True)
        await channel.default_exchange.publish(aio_pika.Message(b"{}"), EVENT_LOG)

        code, lines = await run(vhost.url, "--no-follow")
        assert (code, [line.partition(" is ")[2] for line in lines]) == (
            1,
            ["no stream: gateway setup says what to do about it."],
        )
        message = await until(lambda: queue.get(fail=False), what="it is still there")
        await message.ack()


@pytest.mark.parametrize("url", ["amqp://gateway:geheim@127.0.0.1:1/x", "VHOST"])
async def test_without_a_broker_it_says_what_to_do(vhost: Vhost, url: str) -> None:
    missing = on_vhost(vhost.url, "nobody-made-this")

    code, lines = await run(missing if url == "VHOST" else url)

    assert code == 1
    (line,) = lines
    assert line.startswith("No broker for events at amqp://")
    assert "gateway setup" in line
    assert "geheim" not in line


async def test_it_reads_on_through_a_restart_of_the_broker(private_node: PrivateNode, private_vhost: Vhost) -> None:
    told = Told()
    messages = [told.put(str(number % 3), n=number) for number in range(12)]
    async with publishing(private_vhost.url) as publisher:
        await asyncio.to_thread(private_node.settle)
        async with tail(private_vhost.url, "--json", "--since", "1h") as tailing:
            await publish(publisher, messages[:6])
            await until(lambda: len(ids(tailing.lines)) == 6, what="before")

            await asyncio.to_thread(private_node.kill)
            await until(lambda: "the connection to the broker is lost, waiting for it" in tailing.lines, what="told")
            await asyncio.to_thread(private_node.start)
            await published(publisher, *messages[6:])
            await until(lambda: len(set(ids(tailing.lines))) == 12, 60, "after")

            assert list(dict.fromkeys(ids(tailing.lines))) == sent(messages), "in their order"
            assert tailing.lines.count("the connection to the broker is lost, waiting for it") == 1, "told once"


async def test_a_busy_log_is_read_whole_and_in_order(vhost: Vhost) -> None:
    """Many more than the broker sends ahead."""
    told = Told()
    messages = [told.put(str(number % 7), n=number) for number in range(3000)]
    taken: list[Logged] = []

    def take(some: Sequence[Logged]) -> bool:
        taken.extend(some)
        return True

    async with publishing(vhost.url) as publisher:
        for start in range(0, len(messages), 500):
            await asyncio.gather(*(publisher.publish(one, seconds=30) for one in messages[start : start + 500]))
        await EventLog(vhost.url, print).read(None, take, follow=False)

    assert [one.offset for one in taken] == list(range(3000))
    assert {one.body for one in taken} == {one.body for one in messages}
