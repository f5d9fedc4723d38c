"""Renewing the pair before it expires, unattended: look, lease, present once, keep what comes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from common import tracing
from common.broker.retry import RetryPolicy, jittered
from common.clock import Monotonic, monotonic_seconds
from common.crypto import TokenCipher
from common.errors import Permanent, StoreUnavailable
from common.logs import get_logger
from common.process import Bugs, first_of, pause
from common.token_pair import Pair, unpack
from workers.token.keeping import PairKeeper, written
from workers.token.metrics import TokenMetrics
from workers.token.rules import LEASE, Look, NoReply, Obtained, Refused, Reply, Unknown, Watch, classify
from workers.token.store import Claim, GrantStore

log = get_logger(__name__)


class RefreshesTokens(Protocol):
    """What is needed of the client."""

    async def refresh(self, refresh_token: str) -> Reply | NoReply:
        """Present the token once; bounded in time, never raises."""


@dataclass(frozen=True)
class Pace:
    """How the loop waits, in seconds."""

    poll: float = 1.0
    settle: float = 8.0
    """So long what somebody left unfinished is left alone once the store can be written: its pair may be on its way
    through the queue, whose consumers pause for 5 s at most between two tries. A consumer whose own line to the store
    hangs takes longer; then the old token is refused, and the pair is taken when it comes."""
    last: float = 19.0
    """What is under way when told to stop may take this long: a request (10 s), and its pair's way to store or broker;
    less than the process's grace (20 s)."""
    remind: float = 60.0
    """How often trouble that lasts is logged."""


class Refresher:
    """The loop. Any number run, in any number of processes; the lease lets one act at a time."""

    def __init__(
        self,
        store: GrantStore,
        client: RefreshesTokens,
        keeper: PairKeeper,
        cipher: TokenCipher,
        retry: RetryPolicy,
        *,
        pace: Pace | None = None,
        clock: Monotonic = monotonic_seconds,
        metrics: TokenMetrics | None = None,
    ) -> None:
        self._store = store
        self._client = client
        self._keeper = keeper
        self._cipher = cipher
        self._retry = retry
        self._pace = pace or Pace()
        self._clock = clock
        self._metrics = metrics or TokenMetrics()
        self._watch = Watch()
        self._ending = asyncio.Event()
        """Nothing is begun any more."""
        self._reminded_at = float("-inf")
        self._bugs = Bugs("grant.bug")

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; then nothing is presented any more, and a request under way and its pair have 19 s."""
        self._ending.clear()
        while not stop.is_set():
            await self._finished(asyncio.create_task(self._step()), stop)
            await pause(stop, self._pace.poll)

    async def _finished(self, step: asyncio.Task[None], stop: asyncio.Event) -> None:
        try:
            await first_of(step, stop.wait())
            await self._end(step)
        except asyncio.CancelledError:  # another service of the process has failed; this pair may be the only one
            await self._end(step)
            raise
        finally:
            step.cancel()

    async def _end(self, step: asyncio.Task[None]) -> None:
        if not step.done():
            self._ending.set()
            await asyncio.wait([step], timeout=self._pace.last)
        if step.done():
            step.result()
            return
        log.error("grant.given_up")
        step.cancel()
        await asyncio.wait([step], timeout=self._pace.poll)

    async def _step(self) -> None:
        try:
            await self.refresh_if_due()
        except StoreUnavailable as error:
            if self._is_time_to_remind():
                log.warning("grant.waiting_for_store", reason=str(error))
        except Exception as error:  # noqa: BLE001  # a lease that it may have taken runs out
            self._bugs.survive(error)

    async def refresh_if_due(self) -> None:
        """One look at the row, and one request when it is time.

        Raises:
            StoreUnavailable: whatever was not written is made up for: the lease runs out.
        """
        look = await self._store.look()
        self._metrics.show(look)
        if not self._watch.is_due(look, self._clock()):
            return
        pair = self._opened(look)
        if pair is None:
            return
        left = look if look.lease_owner is None else await self._settled(look)
        began = self._clock()
        claim = await self._store.claim_refresh(left) if left is not None else None
        if claim is not None:
            with tracing.span("refresh", attributes={"gateway.attempt": claim.look.attempts}):
                await self._present(claim, pair, began)

    async def _present(self, claim: Claim, pair: Pair, leased_at: float) -> None:
        asked_at = self._clock()
        is_old = asked_at - leased_at > LEASE.total_seconds() / 2
        if is_old or self._ending.is_set():
            log.warning("grant.lease_too_old" if is_old else "grant.left_to_others")
            await self._store.release(claim)
            return
        reply = await self._client.refresh(pair.refresh_token)
        match classify(reply):
            case Obtained() as obtained:
                self._tell("renewed")
                await self._keeper.keep(claim, obtained, asked_at)
            case Refused(detail):
                self._tell("refused")
                await self._lose(claim, detail)
            case Unknown() as unknown:
                self._tell("unknown")
                await self._put_off(claim, unknown)

    def _tell(self, outcome: str) -> None:
        self._metrics.refreshes.labels(outcome).inc()
        tracing.note({"gateway.outcome": outcome})

    async def _lose(self, claim: Claim, detail: str) -> None:
        if await written(lambda: self._store.lose(claim, detail)):
            log.error(
                "grant.needs_authorisation", reason=detail, mend="an admin has to open /connect and authorise again"
            )
        else:
            log.info("grant.refused_but_renewed", reason=detail)

    async def _put_off(self, claim: Claim, unknown: Unknown) -> None:
        delay = jittered(self._retry.nth(claim.look.attempts))
        say = log.error if unknown.our_fault else log.warning
        say("grant.not_renewed", reason=unknown.detail, attempt=claim.look.attempts, again_in=delay.total_seconds())
        await self._store.put_off(claim, delay, unknown.detail, sent=unknown.sent)

    async def _settled(self, look: Look) -> Look | None:
        """What another holder left unfinished, as it still is after a while under a lease of ours; None: it is not, or
        there is no time left. The leases before and after it show that the store can be written."""
        claim = await self._store.claim_refresh(look)
        if claim is None:
            return None
        if await pause(self._ending, self._pace.settle):
            await self._store.release(claim)
            return None
        now = await self._store.look()
        return now if (now.lease_owner, now.rt_version) == (claim.owner, claim.rt_version) else None

    def _opened(self, look: Look) -> Pair | None:
        assert look.sealed_pair is not None
        try:
            return unpack(self._cipher.open(look.sealed_pair))
        except Permanent as error:
            if self._is_time_to_remind():
                log.error("grant.unreadable", reason=str(error), mend="put the key that sealed it back in SECRET_KEYS")
            return None

    def _is_time_to_remind(self) -> bool:
        now = self._clock()
        if now - self._reminded_at < self._pace.remind:
            return False
        self._reminded_at = now
        return True
