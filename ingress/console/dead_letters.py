"""What could not be processed: by reason, one by one, and looked into; replayed or dropped, one or all of a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlencode

from aiohttp import web

from common.broker.outgoing import Unroutable
from common.errors import BrokerUnavailable
from common.foreign import harmless
from common.logs import get_logger
from common.store.parked import Parked
from common.words import things
from ingress.admin.replaying import Replaying
from ingress.admin.rules import Paging, cursor, queue_of, read_name, read_paging, shown_body
from ingress.admin.store.dead_letters import DeadLetterStore
from ingress.console.live import connection_of
from ingress.console.rules import ROOT, shown
from ingress.console.visit import Visit, needed
from ingress.flow.store import FlowStore
from ingress.parameters import BadInput

PATH = f"{ROOT}/dead-letters"
PAGE = 50
AT_ONCE = 500
"""At most so many are replayed or dropped by one click."""

log = get_logger(__name__)


@dataclass(frozen=True)
class Chosen:
    """What an action is about: one letter, or all of a queue that have a reason."""

    letter_id: str | None
    queue: str
    reason: str

    @property
    def words(self) -> str:
        """For a sentence."""
        return "this dead letter" if self.letter_id else f"everything parked as {self.reason} at {self.queue}"


class DeadLetters:
    """Pages and actions."""

    def __init__(self, store: DeadLetterStore, flow: FlowStore, replaying: Replaying) -> None:
        self._store = store
        self._flow = flow
        self._replaying = replaying

    async def list(self, visit: Visit) -> web.StreamResponse:
        """GET: groups by reason, and the letters (of one queue, reason or connection)."""
        query = visit.query
        queue, reason, connection_id = queue_of(query.get("queue")), query.get("reason"), connection_of(query)
        paging = read_paging(query | {"limit": str(PAGE)}, str)
        found, last = await self._page(queue, reason, connection_id, paging)
        more = f"{PATH}?{urlencode(query | {'after': cursor(last)})}" if last else None
        flow = await self._flow.read()
        shown_by = {"filters": query, "reason": reason, "more": more}
        context = {"letters": found, "groups": flow.parked, "now": flow.at, **shown_by}
        return visit.page("dead_letters.html", context)

    async def show(self, visit: Visit) -> web.StreamResponse:
        """GET: one of them, its body with secrets masked."""
        found = await self._store.get(visit.request.match_info["id"])
        if found is None:
            return visit.missing("dead letter: it was replayed or dropped meanwhile, or never was there")
        body = shown(shown_body(found.body), whole="whole" in visit.query)
        return visit.page("dead_letter.html", {"letter": found, "shown": body})

    async def replay(self, visit: Visit) -> web.StreamResponse:
        """POST: publish again where it came from."""
        chosen = _chosen(visit.form)
        letters = await self._letters(chosen)
        replayed = 0
        try:
            for letter in letters:
                await self._replaying.replay(letter)
                replayed += 1
                _audit("console.replayed", visit, letter)
        except Unroutable:
            text = f"No queue takes {letters[replayed].routing_key}: run gateway setup. {_kept(replayed, letters)}"
            return visit.done(text, mood="bad", back=_back(visit))
        except BrokerUnavailable:
            text = f"The broker does not answer. {_kept(replayed, letters)}"
            return visit.done(text, mood="bad", back=_back(visit))
        return visit.done(_outcome("replayed", replayed, chosen), mood=_mood(replayed), back=_back(visit))

    async def drop(self, visit: Visit) -> web.StreamResponse:
        """POST: asks whether one is sure, and forgets them when the form says so."""
        chosen = _chosen(visit.form)
        letters = await self._letters(chosen)
        if letters and visit.form.get("sure") != "yes":
            context = {"chosen": chosen, "letters": letters, "seen": _seen(letters), "back": _back(visit)}
            return visit.page("drop.html", context)
        if letters and not chosen.letter_id and visit.form.get("seen") != _seen(letters):
            text = f"They are others by now, {len(letters)}: somebody or something was quicker. Nothing was dropped."
            return visit.done(text, mood="bad", back=PATH)
        dropped = 0
        for letter in letters:
            if await self._store.drop(letter.parked_id):
                dropped += 1
                _audit("console.dropped", visit, letter)
        return visit.done(_outcome("dropped", dropped, chosen), mood=_mood(dropped), back=_back(visit))

    async def _letters(self, chosen: Chosen) -> Sequence[Parked]:
        if chosen.letter_id:
            found = await self._store.get(read_name(chosen.letter_id, "id"))
            return [] if found is None else [found]
        return (await self._page(chosen.queue, chosen.reason, None, Paging(None, AT_ONCE)))[0]

    async def _page(
        self, queue: str | None, reason: str | None, connection_id: int | None, paging: Paging
    ) -> tuple[Sequence[Parked], str | None]:
        """Up to a page of them, and where the next one begins (None: there is none)."""
        found = await self._store.list(queue, connection_id, reason, paging)
        return found, found[-1].parked_id if len(found) == paging.limit else None


def _chosen(form: Mapping[str, str]) -> Chosen:
    if form.get("id"):
        return Chosen(form["id"], "", "")
    queue = queue_of(needed(form, "queue"))
    if queue is None:
        raise BadInput("queue is missing: please use the page's own form")
    return Chosen(None, queue, needed(form, "reason"))


def _seen(letters: Sequence[Parked]) -> str:
    """Which ones a person saw: as many others are not the same."""
    return sha256(" ".join(letter.parked_id for letter in letters).encode()).hexdigest()


def _back(visit: Visit) -> str:
    """Where the action was asked for: the front page, or the letters."""
    return ROOT if visit.form.get("back") == "front" else PATH


def _kept(done: int, letters: Sequence[Parked]) -> str:
    return f"{done} replayed, {len(letters) - done} kept."


def _mood(done: int) -> str:
    return "good" if done else "bad"


def _outcome(what: str, done: int, chosen: Chosen) -> str:
    if not done:
        return f"Nothing to be {what}: somebody else was quicker."
    if chosen.letter_id:
        return f"1 dead letter was {what}."
    more = (
        f" That is as many as one click does: there may be more parked as {chosen.reason}." if done == AT_ONCE else ""
    )
    letters, were = things(done, "dead letter"), "was" if done == 1 else "were"
    return f"{letters} parked as {harmless(chosen.reason)} {were} {what}.{more}"


def _audit(event: str, visit: Visit, letter: Parked) -> None:
    log.info(
        event,
        operator=visit.operator,
        parked_id=letter.parked_id,
        queue=letter.queue,
        reason=letter.reason,
        connection_id=letter.connection_id,
    )
