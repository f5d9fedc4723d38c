"""The README's subscriber, run as it is printed."""

from __future__ import annotations

import operator
import re
import sys
from functools import partial
from pathlib import Path

import aio_pika
from aiormq.exceptions import ChannelNotFoundEntity

from common.broker.outgoing import Outgoing
from common.broker.publisher import Publisher
from common.broker.topology import EVENTS, declare, event_queues
from common.codec import dumps
from ops.broker import Vhost
from tests.programs import program
from tests.waiting import until

README = Path(__file__).parents[2] / "README.md"
TRIAL = "my-team.trial"


async def test_the_readmes_subscriber_prints_events_until_it_ends_and_leaves_nothing(
    vhost: Vhost, tmp_path: Path
) -> None:
    example = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert example is not None
    script = tmp_path / "subscriber.py"
    script.write_text(example[1])
    publisher = Publisher(vhost.url, "test")
    connection = await aio_pika.connect(vhost.url)
    async with connection:
        await declare(await connection.channel(), event_queues())
        publisher.start()
        await publisher.wait_ready()

        async def there() -> bool:
            try:
                return bool((await (await connection.channel()).get_queue(TRIAL)).declaration_result.consumer_count)
            except ChannelNotFoundEntity:
                return False

        async def gone() -> bool:
            return not await there()

        async with program([sys.executable, str(script)], {"AMQP_URL": vhost.url}) as shown:
            await until(there, 20, "bound, and read")
            for version in (1, 2):
                await publisher.publish(Outgoing("listing.changed", b"not JSON", exchange=EVENTS))
                await publisher.publish(Outgoing("listing.changed", event(version), exchange=EVENTS))
                line = f"99/resources/7843 updated {version}"
                await until(partial(operator.contains, shown.lines, line), what=line)
            told = sum("JSONDecodeError" in line for line in shown.lines)
            assert told < 50, "a few lines each: what it cannot read does not come back"
        await until(gone, what="its queue goes with it")
        await publisher.close()


def event(version: int) -> bytes:
    return dumps({"subject": "99/resources/7843", "data": {"change": "updated", "version": version}})
