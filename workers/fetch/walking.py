"""Walking: a claim's pages are asked one after another, and each goes to reconcile before the next one is asked."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Protocol

from common.broker.outgoing import MAX_BODY, Outgoing, outgoing
from common.clock import utc_now
from common.errors import UpstreamFailed, UpstreamRefused
from common.identity import place_of
from common.logs import get_logger
from schemas.messages import Json, PageFetched, Source
from workers.fetch.attempt import Attempt
from workers.fetch.claim import Claim
from workers.fetch.store.outcomes import OutcomeStore
from workers.fetch.walk import Walk, saved, step

KEEP_SECONDS = 2.0
PAGE_SECONDS = 300.0
"""More than all that one page waits for may take together, or what comes after the last one: the lease of what hangs
would be renewed for ever."""

log = get_logger(__name__)


class Publishes(Protocol):
    """What a walk needs of the broker."""

    async def publish(self, message: Outgoing) -> None:
        """Publish and wait for the confirm; raises `BrokerUnavailable`."""


class Walking:
    """The walk over the pages of one claim, from its start or from where an earlier attempt left it."""

    def __init__(self, store: OutcomeStore, publisher: Publishes, attempt: Attempt, claim: Claim) -> None:
        self._store = store
        self._publisher = publisher
        self._attempt = attempt
        self.claim = claim
        """The claim; without the walk of an earlier attempt when that had to begin again."""
        self._walk = claim.walk or Walk(claim.url, claim.started)
        self._ended = claim.started
        self._begun_again = False
        self._kept_at = time.monotonic()

    @property
    def progress(self) -> str | None:
        """How far it has come, to be kept: empty when it begins again, None when it is no further than before."""
        if self._begun_again and self._walk.pages == 0:
            return ""
        return None if self._walk == self.claim.walk else saved(self._walk)

    async def run(self) -> Walk:
        """To the end of the pages; each of them is confirmed by the broker when this returns.

        Raises:
            UpstreamFailed, UpstreamRefused, ForbiddenHost, Unavailable: as the attempt and the publisher do;
                `not_found` is said of the claim's own URL only.
            TimeoutError: a bug, as each of them has its own limit: a page took 5 min.
        """
        while self._walk.url:
            try:
                async with asyncio.timeout(PAGE_SECONDS):
                    await self._page()
            except UpstreamRefused as error:
                self._begin_again(error)
        if self._walk.shape == "whole":
            async with asyncio.timeout(PAGE_SECONDS):
                await self._publish_whole()
        return self._walk

    async def _page(self) -> None:
        page, began, ended = await self._attempt.get(self._walk.url, self._progress_to_keep())
        walk = step(self._walk, page)
        if walk.empty and await self._store.is_one_listing(self.claim):
            walk = replace(walk, shape="whole")
        if walk.shape != "whole":
            await self._publish(page.items, walk, self.claim.source(began, ended, utc_now()))
        self._walk = walk
        self._ended = ended

    def _begin_again(self, error: UpstreamRefused) -> None:
        """A later page's link that is refused has run out, as cursors do: once, the walk begins again.

        Raises:
            UpstreamRefused: it is no such refusal, or the second one.
        """
        if self._walk.pages == 0 or not 400 <= error.status < 500:
            raise error
        if self._begun_again:
            raise UpstreamRefused("page_refused", error.detail, status=error.status) from error
        log.info("fetch.begins_again", path=place_of(self.claim.url).path, page=self._walk.pages + 1)
        self._begun_again = True
        self.claim = replace(self.claim, walk=None)
        self._walk = Walk(self.claim.url, self.claim.started)

    def _progress_to_keep(self) -> str | None:
        if time.monotonic() - self._kept_at < KEEP_SECONDS:
            return None
        self._kept_at = time.monotonic()
        return self.progress

    async def _publish_whole(self) -> None:
        if self._walk.broken:
            raise UpstreamFailed("pages of the list are missing", status=200)
        source = self.claim.source(self._walk.first, self._ended, utc_now())
        await self._publish(list(self._walk.gathered), self._walk, source)

    async def _publish(self, items: list[Json], walk: Walk, source: Source) -> None:
        assert walk.shape is not None
        claim = self.claim
        message = outgoing(
            PageFetched(
                connection_id=claim.connection_id,
                source=source,
                mapping=claim.mapping,
                shape=walk.shape,
                items=items,
                page=walk.pages,
                recheck=claim.second_look,
            ),
            "reconcile",
            claim.connection_id,
        )
        if len(message.body) > MAX_BODY:
            raise UpstreamRefused("too_large", f"more than {MAX_BODY} bytes for one message", status=200)
        await self._publisher.publish(message)
