"""What comes over `syncaroo.token`: a code to exchange, or a pair that could not be stored when it was obtained."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from common.broker.consumer import Delivery
from common.broker.retry import RetryPolicy
from common.clock import Monotonic, monotonic_seconds
from common.crypto import TokenCipher
from common.errors import Permanent, Retryable, Unavailable
from common.logs import get_logger
from schemas.messages import CodeReceived, PairObtained
from workers.token.keeping import PairKeeper, written
from workers.token.rules import LEASE, NoReply, Obtained, Refused, Reply, Unknown, Watch, classify, is_code_spent
from workers.token.store import Attempt, Claim, GrantStore

LEASE_WAIT_SECONDS = 8.0
"""How long a code waits for the lease before it goes to a delay queue; a stop must not take longer than its grace."""
LEASE_POLL_SECONDS = 0.25

log = get_logger(__name__)


class ExchangesCodes(Protocol):
    """What is needed of the client."""

    async def exchange(self, code: str) -> Reply | NoReply:
        """Present the code once; bounded in time, never raises."""


class TokenHandler:
    """Exchanges a code under the same lease as a refresh, and tells the attempt how it ended.

    A code that is refused does not touch a grant that works.
    """

    def __init__(
        self,
        store: GrantStore,
        client: ExchangesCodes,
        keeper: PairKeeper,
        cipher: TokenCipher,
        retry: RetryPolicy,
        *,
        stop: asyncio.Event,
        lease_wait: float = LEASE_WAIT_SECONDS,
        clock: Monotonic = monotonic_seconds,
    ) -> None:
        """Once `stop` is set, no code is presented any more: others have it."""
        self._store = store
        self._client = client
        self._keeper = keeper
        self._cipher = cipher
        self._retry = retry
        self._stop = stop
        self._lease_wait = lease_wait
        self._clock = clock
        self._watch = Watch()

    async def __call__(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            match delivery.message():
                case CodeReceived() as code:
                    await self._exchange(code, delivery.attempt)
                case PairObtained() as pair:
                    await self._keeper.restore(pair)
                case other:
                    raise Permanent("unexpected_message", type(other).__name__)

    async def _exchange(self, message: CodeReceived, tries: int) -> None:
        attempt = await self._store.attempt(message.attempt_id)
        if attempt is None:
            raise Permanent("unknown_attempt", "the store does not know it")
        if attempt.outcome != "pending":
            return
        code = await self._opened(message)
        if code is None:
            return
        began = self._clock()
        claim = await self._claimed(message.attempt_id)
        if claim is None:
            await self._later(message.attempt_id, attempt, tries, "the token was being renewed")
        else:
            await self._present(claim, message.attempt_id, code, attempt, tries)
        log.debug("connect.handled", attempt_id=message.attempt_id, seconds=round(self._clock() - began, 2))

    async def _present(self, claim: Claim, attempt_id: str, code: str, attempt: Attempt, tries: int) -> None:
        asked_at = self._clock()
        reply = await self._client.exchange(code)
        match classify(reply):
            case Obtained() as obtained:
                await self._keeper.keep(claim, obtained, asked_at, attempt_id)
                log.info("connect.active", attempt_id=attempt_id)
            case Refused(detail):
                log.error("connect.refused", attempt_id=attempt_id, reason=detail)
                await written(lambda: self._store.conclude(attempt_id, "refused", detail))
                await written(lambda: self._store.release(claim))
            case Unknown() as unknown:
                say = log.error if unknown.our_fault else log.warning
                say("connect.not_exchanged", attempt_id=attempt_id, reason=unknown.detail)
                await self._store.release(claim)
                await self._later(attempt_id, attempt, tries, unknown.detail)

    async def _later(self, attempt_id: str, attempt: Attempt, tries: int, detail: str) -> None:
        """Try again after the policy's delay, unless the code will be too old by then.

        Raises:
            Retryable: the consumer sends the message to its delay queue.
        """
        if is_code_spent(attempt.age, self._retry.delay(tries)):
            log.error("connect.failed", attempt_id=attempt_id, reason=detail)
            await self._store.conclude(attempt_id, "failed", detail)
            return
        await self._store.note(attempt_id, detail)
        raise Retryable(f"code not exchanged: {detail}")

    async def _claimed(self, attempt_id: str) -> Claim | None:
        """The lease, waited for a little; None when somebody else is talking to Syncaroo all the time.

        Raises:
            Unavailable: this process is about to end.
        """
        deadline = self._clock() + self._lease_wait
        while not self._stop.is_set():
            began = self._clock()
            look = await self._store.look()
            is_silent = self._watch.is_silent(look, began)
            claim = await self._store.claim_code(look, attempt_id) if is_silent else None
            if claim is not None:
                if self._clock() - began <= LEASE.total_seconds() / 2 and not self._stop.is_set():
                    return claim
                await self._store.release(claim)
            if self._clock() > deadline and not self._stop.is_set():
                return None
            await asyncio.sleep(LEASE_POLL_SECONDS)
        raise Unavailable("this process is about to end")

    async def _opened(self, message: CodeReceived) -> str | None:
        try:
            return self._cipher.open(message.sealed_code).decode()
        except Permanent as error:
            log.error("connect.unreadable", attempt_id=message.attempt_id, reason=str(error))
            await self._store.conclude(message.attempt_id, "failed", "SECRET_KEYS of ingress and worker differ")
            return None
