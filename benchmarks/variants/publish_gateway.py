"""What the gateway publishes with."""

import uvloop

from benchmarks.variants.timed import BODY, IN_FLIGHT, URL, timed
from common.broker.outgoing import Outgoing
from common.broker.publisher import Publisher

HEADERS = {"schema": "WebhookReceived", "attempt": 0}


async def main() -> None:
    """Publish."""
    publisher = Publisher(URL, "bench")
    publisher.start()
    await publisher.wait_ready()
    try:
        await timed(lambda: publisher.publish(Outgoing("bench", BODY, "bench", HEADERS)), IN_FLIGHT)
    finally:
        await publisher.close()


if __name__ == "__main__":
    uvloop.run(main())
