"""T-IDEMP, T-REORDER, T-DUP: a storm over reconcile's pure rules, with stores of a few lines around them.

`tests/component/test_reconcile_machine.py` runs the same storm over the real ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from common.codec import dumps, loads
from common.errors import UpstreamRefused
from common.identity import own_id, place_of
from schemas.messages import ItemGone, Json, ListingUnmapped, Message, PageFetched, PlatformIds, Reason, Source
from tests.storm import CONNECTION, Call, Stored, Storm
from workers.fetch.answers import Page, check_status, parse_page
from workers.fetch.walk import Walk, step
from workers.reconcile.rules import Answer, Listing, Outcome, decide, event_of, listing_for, mapping_for, unmap

AT = datetime(2026, 1, 2, tzinfo=UTC)
ORIGIN = "https://api.syncaroo.com"


@dataclass
class Target:
    """A URL that was wanted; being fetched while `walk` is there."""

    url: str
    wanted: int = 0
    asked: int = 0
    answered: int = 0
    started: int = 0
    began: int = 0
    walk: Walk | None = None


@dataclass
class RulesGateway:
    """Decides by the rules, and remembers in dictionaries what the stores would."""

    calls: list[Call] = field(default_factory=list)
    queue: list[Message] = field(default_factory=list)
    last: int = 0
    targets: dict[str, Target] = field(default_factory=dict)
    fetching: dict[int, Target] = field(default_factory=dict)
    known: dict[str, Listing] = field(default_factory=dict)
    told: dict[str, list[dict[str, Json]]] = field(default_factory=dict)

    # --- fetch ---

    def number(self) -> int:
        self.last += 1
        return self.last

    def hear(self, url: str) -> None:
        target = self._want(url)
        target.asked = target.wanted

    def unmap(self, url: str) -> None:
        number = self.number()
        self.queue.append(
            ListingUnmapped(connection_id=CONNECTION, url=url, number=number, delivery_id="d", received_at=AT)
        )

    def resync(self, url: str) -> None:
        self._want(url)

    def due(self) -> int:
        return len(self._due())

    def progress(self) -> object:
        return len(self.queue), [(one.wanted, one.answered) for one in self.targets.values()]

    def begin(self, which: int) -> None:
        due = self._due()
        target = due[which % len(due)]
        target.started = target.began = self.number()
        target.walk = Walk(target.url, target.started)
        self._get(target, target.url)

    def end(self, call: Call) -> None:
        self.calls.remove(call)
        target = self.fetching.pop(id(call))
        ended = self.number()
        assert call.response is not None
        try:
            check_status(call.response, AT)
        except UpstreamRefused:
            self._missing(target, ended)
        else:
            self._paged(target, parse_page(call.response, call.url), ended)

    def approve(self) -> bool:
        return False

    def _want(self, url: str) -> Target:
        target = self.targets.setdefault(url, Target(url))
        target.wanted = self.number()
        return target

    def _due(self) -> list[Target]:
        return [one for one in self.targets.values() if one.wanted > one.answered and one.walk is None]

    def _get(self, target: Target, url: str) -> None:
        call = Call(url)
        self.calls.append(call)
        self.fetching[id(call)] = target

    def _missing(self, target: Target, ended: int) -> None:
        target.walk = None
        place = place_of(target.url)
        inside = [one for one in self.known.values() if one.version and one.scope == place.scope]
        if place.segment is None:
            target.answered = target.started
            self._suspect(target, inside, frozenset())
        elif target.asked <= target.answered or any(one.own_path == place.path for one in inside):
            target.answered = target.started
            self.queue.append(ItemGone(connection_id=CONNECTION, source=_source(target, ended, "gone")))

    def _paged(self, target: Target, page: Page, ended: int) -> None:
        assert target.walk is not None
        walk = target.walk = step(target.walk, page)
        assert walk.shape is not None
        if walk.shape != "whole":
            self._publish(target, page.items, walk, ended)
        if walk.url:
            target.began = self.number()
            self._get(target, walk.url)
            return
        target.walk = None
        if walk.shape == "whole":
            if walk.broken:
                return
            target.began = target.started
            self._publish(target, list(walk.gathered), walk, ended)
        target.answered = target.started
        if walk.complete:
            scope = place_of(target.url).scope
            self._suspect(target, [one for one in self.known.values() if one.scope == scope], walk.seen_ids)

    def _publish(self, target: Target, items: list[Json], walk: Walk, ended: int) -> None:
        assert walk.shape is not None
        self.queue.append(
            PageFetched(
                connection_id=CONNECTION,
                source=_source(target, ended, "webhook"),
                mapping=PlatformIds(),
                shape=walk.shape,
                items=items,
                page=walk.pages,
            )
        )

    def _suspect(self, target: Target, inside: list[Listing], seen: frozenset[str]) -> None:
        for one in inside:
            if one.live and one.began < target.started and one.item_id not in seen:
                self._want(one.own_url or ORIGIN + one.own_path)

    # --- reconcile ---

    def deliver(self, *messages: Message) -> None:
        for message in messages:
            self._deliver(message)

    def _deliver(self, message: Message) -> None:
        match message:
            case PageFetched(shape="whole"):
                self._answered(message, [message.items])
            case PageFetched():
                self._answered(message, [one for one in message.items if message.shape == "item" or own_id(one)])
            case ItemGone(source=source):
                gone = Answer(None, "item", source.began, source.ended, source.asked, PlatformIds(), source.url)
                known = [one for one in self.known.values() if one.own_path == place_of(source.url).path]
                for one in known or [listing_for(CONNECTION, source.url, None, "item", None)]:
                    self._apply(one.listing_id, decide(one, gone), source)
            case ListingUnmapped(url=url, number=number):
                new = listing_for(CONNECTION, url, None, "item", None)
                self._apply(new.listing_id, unmap(self.known.get(new.listing_id, new), number), None)

    def listings(self) -> dict[str, Stored]:
        return {
            _name(one): Stored(one.body, one.version, one.version > 0 and not one.live) for one in self.known.values()
        }

    def events(self) -> dict[str, list[dict[str, Json]]]:
        return {_name(self.known[listing_id]): events for listing_id, events in self.told.items()}

    def _answered(self, page: PageFetched, items: list[Json]) -> None:
        source = page.source
        answers = {}
        for item in items:
            new = listing_for(CONNECTION, source.url, item, page.shape, None)
            mapping = mapping_for(page.mapping, page.shape, new.attribute_type)
            answer = Answer(item, page.shape, source.began, source.ended, source.asked, mapping, new.own_url)
            answers[new.listing_id] = new, answer
        for listing_id, (new, answer) in answers.items():
            self._apply(listing_id, decide(self.known.get(listing_id, new), answer), source)

    def _apply(self, listing_id: str, outcome: Outcome, source: Source | None) -> None:
        after = outcome.listing
        before = self.known.get(listing_id, Listing(CONNECTION, listing_id, after.scope, after.item_id, after.own_path))
        self.known[listing_id] = after
        if outcome.change:
            event = event_of(before, outcome, reason="webhook", delivery_id=None, fetched_at=AT)
            self.told.setdefault(listing_id, []).append(loads(dumps(event)))
        if source is not None and outcome.doubt:
            self._want(after.own_url or source.url)
        if source is not None and outcome.change == "deleted":
            below = [one for one in self.known.values() if one.live and one.own_path.startswith(f"{after.own_path}/")]
            for one in below:
                self._want(one.own_url or ORIGIN + one.own_path)


def _name(listing: Listing) -> str:
    return f"{listing.scope}/{listing.item_id}"


def _source(target: Target, ended: int, reason: Reason) -> Source:
    return Source(
        url=target.url,
        began=target.began,
        ended=ended,
        asked=target.asked,
        attempt=0,
        reason=reason,
        delivery_id=None,
        fetched_at=AT,
        status=200,
    )


class RulesStorm(Storm):
    """The storm over the rules alone."""

    def __init__(self) -> None:
        super().__init__()
        self.gateway = RulesGateway()


def test_whatever_arrives_in_whatever_order_the_rules_end_at_the_truth() -> None:
    """T-IDEMP, T-REORDER, T-DUP: over the rules alone, with many examples."""
    run_state_machine_as_test(
        RulesStorm, settings=settings(max_examples=400, stateful_step_count=15, deadline=None, derandomize=True)
    )
