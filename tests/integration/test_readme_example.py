"""The README's subscriber, run as it is printed."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import aio_pika

from common.broker.publisher import Outgoing, Publisher
from common.broker.topology import EVENTS, declare, event_queues
from common.codec import dumps
from ops.broker import Vhost
from tests.waiting import until

README = Path(__file__).parents[2] / "README.md"


async def test_the_readmes_subscriber_prints_an_event(vhost: Vhost, tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert example is not None
    script = tmp_path / "subscriber.py"
    script.write_text(example[1])
    publisher = Publisher(vhost.url, "test")
    connection = await aio_pika.connect(vhost.url)
    async with connection:
        await declare(await connection.channel(), event_queues())
    environment = {**os.environ, "AMQP_URL": vhost.url}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    printed = asyncio.create_task(process.stdout.readline())
    publisher.start()
    try:
        await publisher.wait_ready()
        body = dumps({"subject": "99/resources/7843", "data": {"change": "updated", "version": 2}})

        async def seen() -> bool:
            await publisher.publish(Outgoing("listing.changed", body, exchange=EVENTS))
            return printed.done()

        await until(seen)
        assert (await printed).decode().strip() == "99/resources/7843 updated 2"
    finally:
        process.kill()
        await process.wait()
        await publisher.close()
