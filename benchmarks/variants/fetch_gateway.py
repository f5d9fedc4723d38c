"""What a fetch worker does with a page, from the sealed token to the message that is published, and no further.

The store gives nothing but numbers, and the broker takes what it is given: both are measured elsewhere. With `read` as
its argument no more than the asking, checking and decoding.
"""

import gc
import os
import sys
from datetime import UTC, datetime
from urllib.parse import urlsplit

import uvloop

from benchmarks.variants.timed import timed
from common.broker.outgoing import Outgoing
from common.codec import decode
from common.crypto import TokenCipher
from common.process import GARBAGE
from common.store.engine import Store
from common.token_pair import Pair, pack
from common.urls import AllowedHosts
from schemas.messages import PageFetched, PlatformIds
from workers.fetch.answers import check_status, parse_page
from workers.fetch.attempt import Attempt
from workers.fetch.claim import Claim, Grant
from workers.fetch.client import SyncarooApi
from workers.fetch.metrics import FetchMetrics
from workers.fetch.store.grants import GrantStore
from workers.fetch.store.outcomes import OutcomeStore
from workers.fetch.walking import Walking

IN_FLIGHT = 8
URL = os.environ.get("BENCH_URL", "")
NEVER_OPENED = "sqlite+aiosqlite:///never-opened.db"
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


class Numbers(OutcomeStore):
    """The store's sequence, without a store."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, "bench", rate=1.0)
        self._number = 0

    async def number(self) -> int:
        """The next one."""
        self._number += 1
        return self._number


class Published:
    """Counts what would go to reconcile, and keeps the last of it."""

    def __init__(self) -> None:
        self.count = 0
        self.last = b""

    async def publish(self, message: Outgoing) -> None:
        """Confirmed at once."""
        self.count += 1
        self.last = message.body


async def walks(api: SyncarooApi, metrics: FetchMetrics) -> None:
    """Walk over one page again and again.

    Raises:
        AssertionError: what would be published is not what was asked for.
    """
    store = Store(NEVER_OPENED)
    numbers, grants, published = Numbers(store), GrantStore(store), Published()
    cipher = TokenCipher([KEY])
    grant = Grant(1, cipher.seal(pack(Pair(access_token="access-1", refresh_token="r" * 40))))
    walked = 0

    async def one() -> None:
        nonlocal walked
        claim = a_claim(await numbers.number())
        attempt = Attempt(numbers, grants, api, cipher, claim, grant, metrics)
        await Walking(numbers, published, attempt, claim).run()
        walked += 1

    await timed(one, IN_FLIGHT)
    last = decode(published.last, PageFetched)
    assert published.count == walked
    assert len(last.items) == 100
    await store.close()


def a_claim(number: int) -> Claim:
    """Of a collection, for a webhook."""
    return Claim(
        connection_id=99,
        url=URL,
        host=urlsplit(URL).netloc,
        mapping=PlatformIds(location_id="1198", attribute_type="rates"),
        reason="webhook",
        delivery_id="0197",
        started=number,
        asked=number,
        attempts=0,
        second_look=False,
        last_status=None,
    )


async def reads(api: SyncarooApi) -> None:
    """Read one page again and again."""

    async def one() -> None:
        response = await api.get(URL, "access-1")
        check_status(response, datetime.now(UTC))
        assert len(parse_page(response, URL).items) == 100

    await timed(one, IN_FLIGHT)


async def main(only_read: bool) -> None:
    """As a worker begins."""
    metrics = FetchMetrics()
    allowed = AllowedHosts([urlsplit(URL).netloc], allow_http=True)
    async with SyncarooApi(allowed, allow_private=True, concurrency=IN_FLIGHT, metrics=metrics) as api:
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GARBAGE)
        await (reads(api) if only_read else walks(api, metrics))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1:] == ["read"]))
