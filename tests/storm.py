"""A storm over reconcile: listings change while they are asked, and what is answered arrives in any order, any number
of times. `Storm` is the hypothesis machine; a `Gateway` is what it drives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from common.codec import canonical, dumps
from schemas.messages import Json
from tests.rfc6902 import applied
from workers.fetch.answers import Response

CONNECTION = 99
ROOMS = "https://api.syncaroo.com/v1/locations/5/resources"
RATES = f"{ROOMS}/1/rates"
HOURS = "https://api.syncaroo.com/v1/hours"
"""A list whose items carry no ids: one listing."""
TAGS = "https://api.syncaroo.com/v1/tags"
"""A list whose items have ids but no URL of their own."""
LISTS = [ROOMS, RATES, HOURS]
ITEMS = [f"{ROOMS}/1", f"{ROOMS}/2", f"{ROOMS}/3", f"{RATES}/7", f"{RATES}/8"]
PAGE_SIZE = 2

SUMMARY = ("ID", "n", "status")
"""What the list of rooms shows of each; the list of rates shows everything."""


class World:
    """Syncaroo's truth at this moment."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Json]] = {url: _item(url) for url in ITEMS if url != ITEMS[2]}
        self.hours: list[Json] = [{"day": 1}]
        self.tags: dict[int, Json] = {}
        self.read_alone: set[str] = set()
        """Items that were ever answered by their own URL."""
        self.unseen: set[str] = set()
        """Items whose `n` has changed without a webhook, and that no answer has shown since."""

    def answer(self, url: str) -> Response:
        """What Syncaroo answers now."""
        path, _, query = url.partition("?")
        if path in self.items:
            self.read_alone.add(path)
            self.unseen.discard(path)
            return _page([self.items[path]], path, 1)
        number = int(parse_qs(query).get("page", ["1"])[0])
        if path in (HOURS, TAGS):
            return _page(self.hours if path == HOURS else list(self.tags.values()), path, number)
        if path == ROOMS or (path == RATES and f"{ROOMS}/1" in self.items):
            items = [one for one in self.items if one.rpartition("/")[0] == path]
            self.unseen -= set(items[(number - 1) * PAGE_SIZE : number * PAGE_SIZE])
            return _page([self.shown(one) for one in items], path, number)
        return Response(404)

    def shown(self, url: str) -> dict[str, Json]:
        """The item as its list shows it."""
        body = self.items[url]
        return body if url.startswith(RATES) else {name: body[name] for name in SUMMARY if name in body}

    def within(self, url: str) -> list[str]:
        """The items that end with this one."""
        return [one for one in self.items if one.startswith(f"{url}/")]


def _item(url: str) -> dict[str, Json]:
    return {"ID": url.rpartition("/")[2], "n": 1, "status": "active", "text": "long"}


def _page(items: list[Json], url: str, number: int) -> Response:
    count = max(1, -(-len(items) // PAGE_SIZE))
    following = f"{url}?page={number + 1}" if number < count else None
    shown = items[(number - 1) * PAGE_SIZE : number * PAGE_SIZE]
    pages = {"count": count, "current": number, "next": following}
    return Response(200, dumps({"data": shown, "pages": pages}), "application/json")


@dataclass(eq=False)
class Call:
    """A GET that is under way; the truth may be read at any moment of it."""

    url: str
    response: Response | None = None


@dataclass(frozen=True)
class Stored:
    """A listing as the gateway keeps it."""

    body: Json
    version: int
    deleted: bool


class Gateway(Protocol):
    """The stages under the storm."""

    @property
    def calls(self) -> list[Any]:
        """GETs under way."""

    @property
    def queue(self) -> list[Any]:
        """Everything that was ever published to reconcile."""

    def hear(self, url: str) -> None:
        """A webhook for the URL is taken up."""

    def unmap(self, url: str) -> None:
        """A webhook says `unmapped`; what it makes goes into the queue."""

    def resync(self, url: str) -> None:
        """The URL is wanted, not by a webhook."""

    def due(self) -> int:
        """How many targets could be claimed now."""

    def progress(self) -> object:
        """What differs once something was wanted, answered or published."""

    def begin(self, which: int) -> None:
        """Claim one of them: its first GET is under way."""

    def end(self, call: Any) -> None:
        """The answer of the GET is here; the walk goes on or ends."""

    def deliver(self, *messages: Any) -> None:
        """Messages reach reconcile, together and in this order."""

    def approve(self) -> bool:
        """A person lets held deletions pass; whether there were any."""

    def listings(self) -> dict[str, Stored]:
        """Listings by the path of their list and their id."""

    def events(self) -> dict[str, list[dict[str, Json]]]:
        """The data of all events of each listing, in order."""


class Storm(RuleBasedStateMachine):
    """Whatever happens, in the end the store is the truth, and the events tell how it came to it."""

    gateway: Gateway

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.webhooks = list(self.world.items)
        """Sent by Syncaroo, not yet heard."""
        self.unheard: list[int] = []
        """Places in the queue that were not delivered yet."""
        self.unmapped: set[str] = set()
        self._is_told_of_hours = False
        self._queued = 0
        self._next = 0

    @initialize(newest_first=st.booleans())
    def choose_an_order(self, newest_first: bool) -> None:
        """In which order everything arrives that is still under way at the end."""
        self._next = -1 if newest_first else 0

    # --- the world -----------------------------------------------------------------------------------------------

    @rule(url=st.sampled_from(ITEMS), n=st.integers(1, 2), text=st.sampled_from(["a", "b", None]), draft=st.booleans())
    def put(self, url: str, n: int, text: str | None, draft: bool) -> None:
        """An item is made or changed; its own webhook tells."""
        if url.startswith(RATES) and f"{ROOMS}/1" not in self.world.items:
            return
        body: dict[str, Json] = {"ID": url.rpartition("/")[2], "n": n, "status": "draft" if draft else "active"}
        self.world.items[url] = body if text is None else {**body, "text": text}
        self.webhooks.append(url)

    @rule(url=st.sampled_from(ITEMS), n=st.integers(1, 2))
    def put_told_by_the_list(self, url: str, n: int) -> None:
        """What lists show changes, and only the list's webhook tells."""
        if url in self.world.items:
            self.world.items[url] = {**self.world.items[url], "n": n}
        elif url not in self.world.read_alone and url == ITEMS[2]:
            self.world.items[url] = {**_item(url), "n": n}
        else:
            return
        self.webhooks.append(url.rpartition("/")[0])

    @rule(url=st.sampled_from(ITEMS), early=st.lists(st.booleans(), min_size=4, max_size=4))
    def put_untold(self, url: str, early: list[bool]) -> None:
        """What lists show changes, and the webhook gets lost: once any answer has shown it, it must not get lost.

        Of the GETs that are under way, those of `early` read the truth before, the others after.
        """
        if url not in self.world.items:
            return
        calls = [call for call in self.gateway.calls if call.response is None]
        for call in [one for one, before in zip(calls, early, strict=False) if before]:
            call.response = self.world.answer(call.url)
        body = self.world.items[url]
        self.world.items[url] = {**body, "n": 3 - int(body["n"])}
        self.world.unseen.add(url)
        for call in [one for one, before in zip(calls, early, strict=False) if not before]:
            call.response = self.world.answer(call.url)

    @rule(url=st.sampled_from(ITEMS), says_so=st.booleans())
    def delete(self, url: str, says_so: bool) -> None:
        """An item ends, with what lies in it, or says that it has ended."""
        if url not in self.world.items:
            return
        self.webhooks.append(url)
        if says_so:
            self.world.items[url] = {**self.world.items[url], "status": "deleted"}
            return
        # Of what the gateway has yet to see of the items within, nobody could tell it that they ended.
        quiet = not (self.gateway.calls or self.unheard or self.webhooks or self.gateway.due())
        known = self.gateway.listings() if quiet else {}
        for one in [*self.world.within(url), url]:
            del self.world.items[one]
            if not _is_live(known, url):
                self.webhooks.append(one)

    @rule(url=st.sampled_from(ITEMS))
    def delete_untold(self, url: str) -> None:
        """An item ends, with what lies in it, the webhook gets lost, and a resync asks for it."""
        if url in self.world.items:
            for one in [*self.world.within(url), url]:
                del self.world.items[one]
                self.gateway.resync(one)

    @rule()
    def vanish(self) -> None:
        """Everything ends at once, more than may without a person's consent."""
        self.webhooks += self.world.items
        self.world.items.clear()

    @rule(url=st.sampled_from(ITEMS))
    def move(self, url: str) -> None:
        """An item moves to the end of its list, perhaps over the border of a page that is being read."""
        if url in self.world.items:
            self.world.items[url] = self.world.items.pop(url)

    @rule(days=st.lists(st.integers(1, 3), min_size=1, max_size=3))
    def open_hours(self, days: list[int]) -> None:
        """The list that is one listing changes."""
        self.world.hours = [{"day": day} for day in days]
        self.webhooks.append(HOURS)

    # --- what the gateway hears ----------------------------------------------------------------------------------

    @precondition(lambda self: self.webhooks)
    @rule(data=st.data(), again=st.booleans())
    def hear(self, data: st.DataObject, again: bool) -> None:
        """Webhooks come in any order, some twice."""
        which = data.draw(st.integers(0, len(self.webhooks) - 1))
        url = self.webhooks[which]
        if not again:
            del self.webhooks[which]
        self._hear(url)

    @rule(url=st.sampled_from(ITEMS))
    def unmap(self, url: str) -> None:
        """The item is not ours any more, until a later webhook for it."""
        self.gateway.unmap(url)
        self.unmapped.add(url)
        self._note_queued()

    @rule(url=st.sampled_from(LISTS))
    def resync(self, url: str) -> None:
        """A list is read without a webhook."""
        self.gateway.resync(url)
        self._is_told_of_hours |= url == HOURS

    # --- fetching ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.gateway.due())
    @rule(whiches=st.lists(st.integers(0, 10), min_size=1, max_size=4))
    def begin(self, whiches: list[int]) -> None:
        """GETs begin, perhaps several at once."""
        for which in whiches[: self.gateway.due()]:
            self.gateway.begin(which)

    @rule(url=st.sampled_from(ITEMS), early=st.lists(st.booleans(), min_size=4, max_size=4), list_first=st.booleans())
    def race(self, url: str, early: list[bool], list_first: bool) -> None:
        """An item's own URL and its list are asked at once, while it changes and no webhook tells."""
        both = [url.rpartition("/")[0], url] if url in self.world.items else []
        for one in both if list_first else reversed(both):
            self.gateway.resync(one)
            for _ in range(self.gateway.due()):
                self.gateway.begin(0)
        self.put_untold(url, early)

    @precondition(lambda self: self.gateway.calls)
    @rule(which=st.integers(0, 10))
    def read(self, which: int) -> None:
        """Syncaroo reads its truth for a GET that is under way."""
        call = self.gateway.calls[which % len(self.gateway.calls)]
        call.response = call.response or self.world.answer(call.url)

    @precondition(lambda self: self.gateway.calls)
    @rule(which=st.integers(0, 10))
    def end(self, which: int) -> None:
        """A GET ends."""
        self._end(self.gateway.calls[which % len(self.gateway.calls)])

    # --- delivery ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.unheard)
    @rule(which=st.lists(st.integers(0, 20), min_size=1, max_size=4))
    def deliver(self, which: list[int]) -> None:
        """Some messages reach reconcile at once, whichever of those that wait."""
        heard = [self.unheard.pop(one % len(self.unheard)) for one in which if self.unheard]
        self.gateway.deliver(*(self.gateway.queue[place] for place in heard))

    @precondition(lambda self: self.gateway.queue)
    @rule(which=st.integers(0, 50))
    def deliver_any(self, which: int) -> None:
        """A message reaches reconcile once more, or is copied on its way."""
        self.gateway.deliver(self.gateway.queue[which % len(self.gateway.queue)])

    @rule()
    def calm_down(self) -> None:
        """Everything arrives and is asked for: what comes next begins from rest."""
        self.settle()
        assert self.found() == self.expected()

    # --- the end -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """The storm ends; what is under way arrives; what is wanted is asked until nothing is wanted."""
        self.settle()
        check_events(self.gateway.listings(), self.gateway.events())
        assert self.found() == self.expected()
        before = self.gateway.listings()
        self.gateway.deliver(*self.gateway.queue)
        self.settle()
        assert self.gateway.listings() == before, "everything once more changes nothing"

    def expected(self) -> dict[str, str]:
        """The truth that the gateway was told of: canonical bodies by path."""
        bodies: dict[str, Json] = {}
        for url, body in self.world.items.items():
            if url not in self.unmapped and body["status"] != "deleted":
                bodies[_path(url)] = body if url in self.world.read_alone else self.world.shown(url)
        if self._is_told_of_hours:
            bodies[f"{_path(HOURS)}/hours"] = self.world.hours
        bodies |= {f"{_path(TAGS)}/{tag}": body for tag, body in self.world.tags.items()}
        return self._comparable(bodies)

    def found(self) -> dict[str, str]:
        """What the gateway has come to, alike."""
        return self._comparable({path: one.body for path, one in self.gateway.listings().items() if one.body})

    def _comparable(self, bodies: dict[str, Json]) -> dict[str, str]:
        unseen = {_path(url) for url in self.world.unseen}
        return {path: canonical({**body, "n": "?"} if path in unseen else body) for path, body in bodies.items()}

    def settle(self) -> None:
        """Everything arrives, and is asked for until nothing is wanted; whatever is held is agreed to."""
        for _ in range(30):
            while self.webhooks:
                self._hear(self.webhooks.pop(self._next))
            while self.gateway.calls:
                self._end(self.gateway.calls[self._next])
            while self.unheard:
                self.gateway.deliver(self.gateway.queue[self.unheard.pop(self._next)])
            before = self.gateway.progress()
            for _ in range(self.gateway.due()):
                self.gateway.begin(0)
            while self.gateway.calls:
                self._end(self.gateway.calls[self._next])
            if self.gateway.progress() == before and not self.gateway.approve():
                return  # nothing is wanted, but what was never there
        raise AssertionError("it never comes to rest")

    def _hear(self, url: str) -> None:
        self.gateway.hear(url)
        self.unmapped.discard(url)
        self._is_told_of_hours |= url == HOURS

    def _end(self, call: Call) -> None:
        call.response = call.response or self.world.answer(call.url)
        self.gateway.end(call)
        self._note_queued()

    def _note_queued(self) -> None:
        self.unheard += range(self._queued, len(self.gateway.queue))
        self._queued = len(self.gateway.queue)


def check_events(listings: dict[str, Stored], events: dict[str, list[dict[str, Json]]]) -> None:
    """Versions 1 to n; each event's patch leads from the last one's body to its own; the last one's is the store's."""
    assert {path for path, one in listings.items() if one.version} == set(events)
    for path, told in events.items():
        body: Json = None
        for number, event in enumerate(told, 1):
            assert event["version"] == number
            assert canonical(event["previous"]) == canonical(body), "each begins where the last one ended"
            assert canonical(event["current"]) != canonical(body), "no event without a change"
            if event["change"] == "updated":
                assert canonical(applied(event["patch"], body)) == canonical(event["current"])
                assert _differing(body, event["current"]) == event["changedFields"]
            else:
                assert (event["patch"], event["changedFields"]) == ([], [])
                assert event["change"] == ("created" if body is None else "deleted")
            body = event["current"]
        stored = listings[path]
        assert (stored.version, stored.deleted) == (len(told), body is None)
        assert canonical(stored.body) == canonical(body)


def _differing(before: Json, after: Json) -> list[str]:
    if not isinstance(before, dict) or not isinstance(after, dict):
        return []
    absent = object()
    return sorted(one for one in before.keys() | after.keys() if before.get(one, absent) != after.get(one, absent))


def _is_live(listings: dict[str, Stored], url: str) -> bool:
    return _path(url) in listings and listings[_path(url)].body is not None


def _path(url: str) -> str:
    return urlsplit(url).path
