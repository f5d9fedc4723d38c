"""Keeping a pair that was obtained: in the grant row, or else on the broker until the row can be written."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from common.broker.outgoing import Outgoing, outgoing
from common.clock import Monotonic, monotonic_seconds
from common.crypto import TokenCipher
from common.errors import BrokerUnavailable, StoreUnavailable
from common.logs import get_logger
from common.token_pair import pack
from schemas.messages import PairObtained
from workers.token.rules import Obtained, refresh_after
from workers.token.store import Claim, GrantStore

SHARD = 0
"""The grant belongs to no connection; its messages share one shard."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
"""Seconds between tries to write what must not get lost."""
COMMIT_SECONDS = 3.0
"""While a store takes longer, the broker is tried: the store's own limits would outlast a stop."""

log = get_logger(__name__)
T = TypeVar("T")


async def written(write: Callable[[], Awaitable[T]]) -> T:
    """Write a verdict, again and again until the store takes it: what Syncaroo has refused is not presented again."""
    pause = FIRST_PAUSE
    while True:
        try:
            return await write()
        except StoreUnavailable as error:
            log.error("grant.verdict_not_stored", reason=str(error))
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


class Publishes(Protocol):
    """What is needed of the publisher."""

    async def publish(self, message: Outgoing) -> None:
        """Publish and wait for the confirm; raises `BrokerUnavailable`."""


class PairKeeper:
    """Does not return before the pair is safe, nor raise: it is the only one, whatever goes wrong with keeping it."""

    def __init__(
        self, store: GrantStore, publisher: Publishes, cipher: TokenCipher, *, clock: Monotonic = monotonic_seconds
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._cipher = cipher
        self._clock = clock
        self._committing: set[asyncio.Task[bool]] = set()

    async def close(self) -> None:
        """Nothing is committed any more, after a last moment for what is on its way; most of it is on the broker."""
        if self._committing:
            await asyncio.wait(self._committing, timeout=COMMIT_SECONDS)
        for commit in self._committing:
            commit.cancel()
        await asyncio.gather(*self._committing, return_exceptions=True)

    async def keep(self, claim: Claim, obtained: Obtained, asked_at: float, attempt_id: str | None = None) -> None:
        """Commit the pair; while the store does not take it, publish it encrypted; both again until one holds.

        A commit that is slow goes on beside: what it writes tells the lifetime, and the copy on the broker is obsolete.

        `asked_at`: this process's monotonic clock right before the request, from which the lifetime counts.
        """
        sealed = self._cipher.seal(pack(obtained.pair))
        message = PairObtained(rt_version=claim.rt_version, sealed_pair=sealed, attempt_id=attempt_id)
        pause = FIRST_PAUSE
        commits: set[asyncio.Task[bool]] = set()
        while True:
            # One that hangs, as on a line that is dead, holds up no other: all of them succeed the same version.
            commits.add(self._begin(self._committed(message, obtained.lifetime, asked_at)))
            done, commits = await asyncio.wait(commits, timeout=COMMIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            held = any(not commit.cancelled() and commit.result() for commit in done)
            if held or await self._published(message):
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _begin(self, commit: Coroutine[Any, Any, bool]) -> asyncio.Task[bool]:
        task = asyncio.create_task(commit)
        self._committing.add(task)
        task.add_done_callback(self._committing.discard)
        return task

    async def restore(self, message: PairObtained) -> None:
        """Commit a pair that came over the broker; its age is not known, so it is only used to get the next one.

        Raises:
            StoreUnavailable: still.
        """
        kept = await self._store.keep(
            message.rt_version,
            message.sealed_pair,
            valid_for=timedelta(0),
            refresh_in=timedelta(0),
            attempt_id=message.attempt_id,
        )
        log.info("grant.restored" if kept else "grant.obsolete_pair", rt_version=message.rt_version)

    async def _committed(self, message: PairObtained, lifetime: timedelta, asked_at: float) -> bool:
        left = lifetime - timedelta(seconds=self._clock() - asked_at)
        try:
            kept = await self._store.keep(
                message.rt_version,
                message.sealed_pair,
                valid_for=left,
                refresh_in=refresh_after(left, random.random()),  # noqa: S311  # spreads load, guards nothing
                attempt_id=message.attempt_id,
            )
        except StoreUnavailable as error:
            log.error("grant.pair_not_stored", reason=str(error), rt_version=message.rt_version)
            return False
        except Exception:
            log.exception("grant.bug", rt_version=message.rt_version)
            return False
        log.info("grant.renewed" if kept else "grant.obsolete_pair", rt_version=message.rt_version)
        return True

    async def _published(self, message: PairObtained) -> bool:
        try:
            await self._publisher.publish(outgoing(message, "token", SHARD))
        except BrokerUnavailable as error:
            log.error("grant.pair_not_published", reason=str(error), rt_version=message.rt_version)
            return False
        except Exception:
            log.exception("grant.bug", rt_version=message.rt_version)
            return False
        log.warning("grant.pair_published", rt_version=message.rt_version)
        return True
