"""Claiming what is due, and keeping the leases of what is being fetched."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol

from common.clock import monotonic_seconds
from common.errors import StoreUnavailable
from common.identity import place_of
from common.logs import get_logger
from common.process import Bugs, pause
from workers.fetch.claim import Claim, Grant
from workers.fetch.metrics import FetchMetrics
from workers.fetch.pacing import cap_of
from workers.fetch.store.claims import ClaimStore

POLL_SECONDS = 0.25
RENEW_SECONDS = 5.0
WIND_UP_SECONDS = 8.0
BUG_SECONDS = 1.0

log = get_logger(__name__)


class Fetches(Protocol):
    """What the loop needs of the fetcher."""

    async def fetch(self, claim: Claim, grant: Grant) -> None:
        """Drive the claim to answered, put off, or parked; may raise `StoreUnavailable`."""


async def _never() -> bool:
    return False


class ClaimLoop:
    """Claims what is due, up to `concurrency` at once, and keeps the leases of what is being fetched.

    Part of the concurrency is never one connection's alone; nothing is claimed while `held`.
    """

    def __init__(
        self,
        targets: ClaimStore,
        fetcher: Fetches,
        concurrency: int,
        *,
        held: Callable[[], Awaitable[bool]] = _never,
        wind_up_seconds: float = WIND_UP_SECONDS,
        metrics: FetchMetrics | None = None,
    ) -> None:
        self._targets = targets
        self._fetcher = fetcher
        self._wake = asyncio.Event()
        self._concurrency = concurrency
        self._held = held
        self._wind_up_seconds = wind_up_seconds
        self._metrics = metrics or FetchMetrics()
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._cap = cap_of(concurrency)
        self._likely = True
        """There is something to claim: it need not be asked before."""
        self._in_vain = False
        """The last claim found nothing: there may be no token, or no budget, whatever was made wanted."""
        self._rest_until = 0.0
        self._bugs = Bugs("fetch.bug")

    def wake(self) -> None:
        """Targets were made wanted: they are claimed at once."""
        self._likely = True
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; then what is in hand is finished, or given back after 8 s."""
        renewing = asyncio.create_task(self._keep_leases())
        stopping = asyncio.create_task(self._wake_at(stop))
        try:
            while not stop.is_set():
                await self._rest(stop)
                self._wake.clear()
                if not await self._claim_some():
                    await pause(self._wake, POLL_SECONDS)
            await self._wind_up()
        finally:
            renewing.cancel()
            stopping.cancel()
            for task in self._running:
                task.cancel()

    async def _wind_up(self) -> None:
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=self._wind_up_seconds)
        claims = [self._running[task] for task in late]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if claims:
            await self._give_back(claims)

    async def _give_back(self, claims: list[Claim]) -> None:
        try:
            await self._targets.release(claims)
            log.info("fetch.given_back", claims=len(claims))
        except StoreUnavailable as error:
            log.warning("fetch.not_given_back", reason=str(error), claims=len(claims))  # the leases run out

    async def _rest(self, stop: asyncio.Event) -> None:
        """As long as the claim before took: what ends meanwhile is replaced at once, and claiming is never most of the
        work."""
        left = self._rest_until - monotonic_seconds()
        if left > 0:
            await pause(stop, left)

    async def _claim_some(self) -> bool:
        """Start what can be started; whether there may be more at once."""
        began, free = monotonic_seconds(), self._concurrency - len(self._running)
        try:
            if free == 0 or await self._held():
                return False
            likely, self._likely = self._likely and not self._in_vain, False
            if not likely and not await self._targets.anything_due():
                return False
            claims, grant = await self._targets.claim(free, running=self._by_connection(), cap=self._cap)
        except StoreUnavailable as error:
            log.warning("fetch.waiting", reason=str(error))
            return False
        except Exception as error:  # noqa: BLE001  # leases of what it may have claimed run out
            self._bugs.survive(error)
            await asyncio.sleep(BUG_SECONDS)
            return False
        finally:
            ended = monotonic_seconds()
            self._rest_until = ended + min(ended - began, POLL_SECONDS)
        self._in_vain = not claims
        for claim in claims:
            assert grant is not None
            self._start(claim, grant)
        # Where there was no room for more, there may be more.
        full = len(claims) == free or max(self._by_connection().values(), default=0) >= self._cap
        self._likely |= full
        return full and bool(claims)

    def _by_connection(self) -> Counter[int]:
        return Counter(claim.connection_id for claim in self._running.values())

    def _start(self, claim: Claim, grant: Grant) -> None:
        task = asyncio.create_task(self._fetch(claim, grant))
        self._running[task] = claim
        self._metrics.claimed.inc()
        self._metrics.fetching.set(len(self._running))
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._metrics.fetching.set(len(self._running))
        self._wake.set()  # there is room, and it may be wanted again

    async def _fetch(self, claim: Claim, grant: Grant) -> None:
        try:
            await self._fetcher.fetch(claim, grant)
        except StoreUnavailable as error:
            log.warning("fetch.abandoned", reason=str(error))  # the lease runs out, then it is claimed again
        except Exception:
            log.exception("fetch.bug", path=place_of(claim.url).path)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                if self._running:
                    await self._targets.renew(list(self._running.values()))
            except StoreUnavailable as error:
                log.warning("fetch.lease_not_renewed", reason=str(error))
            except Exception:
                log.exception("fetch.bug")  # the next time is soon, and nobody waits for this task

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()
