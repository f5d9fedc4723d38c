"""The checker: what Syncaroo sent and was asked, what subscribers got and what the store holds, added up.

Pure. It orders by the stand-in's one counter and by versions; only how long something took is by a clock, that of the
stand-in. It shares no rule with the gateway: a listing is matched with the world by the end of its own URL. Calls do
not show their connection, so what one connection lost of a URL that another has read shows as stale. Take the evidence
when all is quiet; a webhook that was lost on purpose must have been made good by a resync before.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from common.codec import canonical
from sandbox.records import CallRecord, Snapshot, TokenRecord, WebhookRecord
from sandbox.truth import Truth

Json = Mapping[str, Any]
Key = tuple[int, str, str]
"""Connection, kind in the plural, the item's id: ids of the stand-in's world are unique."""

SHOWN = 20
_CONCLUSIVE = frozenset({200, 404, 410})
_SPOILT = frozenset({"api_status", "api_redirect", "api_html", "api_reset", "api_truncate"})
"""Faults after which the caller has no answer, whatever status is in the record."""
_NO_VERDICT = frozenset({"dropped", "failed"})
_DOUBTFUL = frozenset({"token_drop", "token_status", "token_html", "token_missing"})
"""Faults after which the caller cannot know what became of its code or token."""
KEPT_SECONDS = 10.0
"""A pair that came so long before a crash has been kept, unless store and broker were both away all the time."""
GIVEN_UP_SECONDS = 8.0
"""An answer that took so long may have found nobody who still waits for it."""
REDELIVERED_SECONDS = 45.0
"""A message whose reader is dead, or cut off, may be handled so much later than those behind it."""
_REUSE = "reuse"
"""What the stand-in believes to have answered twice: `presented_again` knows better what was answered."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was seen from outside: `events` are CloudEvents in the order of their arrival, duplicates included;
    `listings` and `dead_letters` are the items of the admin API."""

    records: Snapshot
    world: Truth
    events: Sequence[Json]
    listings: Sequence[Json]
    dead_letters: Sequence[Json] = ()
    foreign: Sequence[str] = ()
    """Requests that came to a host that is nobody of ours."""
    targets: Sequence[Json] = ()
    """Those of the admin API."""
    crashes: Sequence[tuple[int, int]] = ()
    """From and to which number somebody who asks for tokens was dead, or stood still."""
    doubtful: Sequence[tuple[int, int]] = ()
    """From and to which number answers may have been lost on a line, and requests may have come that were given up."""


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The sum. Numbers are what happened; each tuple names its members for a person."""

    webhooks_accepted: int
    webhooks_refused: int
    api_calls: int
    events: int
    """Different ones."""
    duplicates: tuple[str, ...]
    """Events that came more than once: allowed (at least once)."""
    parked: tuple[str, ...]
    """Dead letters: allowed, a person sees them."""
    lost: tuple[str, ...]
    """Accepted webhooks without a fetch that began after them, or that no target was wanted by, and not parked."""
    gaps: tuple[str, ...]
    """Versions of a listing that no event told."""
    clashes: tuple[str, ...]
    """Versions that two different events told."""
    phantoms: tuple[str, ...]
    """Events that tell what the store does not know, or no change at all, or a change from what was not so."""
    replay_differs: tuple[str, ...]
    """Listings for which the events, applied in the order of versions, do not give the stored state."""
    stale: tuple[str, ...]
    """Listings that are missing, left over, or differ from the world."""
    overlapping: tuple[str, ...]
    """Requests for Syncaroo's tokens that were under way at the same time."""
    presented_again: tuple[str, ...]
    """Codes and refresh tokens that were presented after a pair, or a refusal, had been answered to them: right only
    after a crash, or a stop longer than the lease."""
    violations: tuple[str, ...]
    """What the stand-in saw that the guide does not allow."""
    foreign: tuple[str, ...] = ()
    """Requests to a host that is nobody of ours."""

    @property
    def adds_up(self) -> bool:
        """Whether nothing is wrong: duplicates and parked ones are not."""
        return not any(found for _, found in self._faults())

    @property
    def exit_code(self) -> int:
        """For scripts: 0 when it adds up, else 1."""
        return 0 if self.adds_up else 1

    def lines(self) -> list[str]:
        """`name: number`, one each."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return [f"{name}: {value if isinstance(value, int) else len(value)}" for name, value in values]

    def allowed(self) -> list[str]:
        """What a person may want to look at: dead letters by queue and reason, and events that came twice."""
        reasons = Counter(one.rpartition(" ")[0] for one in self.parked)
        shown = [f"parked: {count} of {reason}" for reason, count in sorted(reasons.items())]
        return shown + [f"duplicates: {one}" for one in self.duplicates[:SHOWN]]

    def faults(self) -> list[str]:
        """What does not add up, member by member, at most 20 of a kind."""
        shown = []
        for name, found in self._faults():
            shown += [f"{name}: {one}" for one in found[:SHOWN]]
            if len(found) > SHOWN:
                shown.append(f"{name}: and {len(found) - SHOWN} more")
        return shown

    def _faults(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        allowed = {"duplicates", "parked"}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple) and field.name not in allowed:
                yield field.name, value


def audit(evidence: Evidence) -> Ledger:
    """Add the evidence up."""
    records = evidence.records
    accepted = [one for one in records.webhooks if _accepted(one)]
    told = [event for event in evidence.events if event["type"] == "listing.changed"]
    changes = _by_listing(told)
    stored = {str(listing["listingId"]): listing for listing in evidence.listings}
    return Ledger(
        webhooks_accepted=len(accepted),
        webhooks_refused=sum(not one.lost and not _accepted(one) for one in records.webhooks),
        api_calls=len(records.calls),
        events=len({event["id"] for event in evidence.events}),
        duplicates=_sorted(_duplicates(evidence.events)),
        parked=_sorted(f"{one['queue']} {one['reason']} {one['id']}" for one in evidence.dead_letters),
        lost=(*_unanswered(accepted, evidence), *_unmarked(records.webhooks, evidence)),
        gaps=_sorted(_gaps(changes, stored)),
        clashes=_sorted(_clashes(changes)),
        phantoms=_sorted(_phantoms(changes, stored)),
        replay_differs=_sorted(_replay_differs(changes, stored)),
        stale=_sorted(_stale(evidence.world, evidence.listings)),
        overlapping=_sorted(_overlapping(evidence)),
        presented_again=tuple(_presented_again(evidence)),
        violations=tuple(f"#{one.order} {one.text}" for one in records.violations if one.kind != _REUSE),
        foreign=tuple(evidence.foreign),
    )


# --- webhooks and calls


def unheeded(evidence: Evidence) -> tuple[str, ...]:
    """Listings that are not as the world is, though an accepted webhook came after their last change and is not parked.

    Stricter than `lost`, which takes a call for an answer: nothing else may have made good what a webhook told.
    """
    records, world = evidence.records, evidence.world
    accepted = [one for one in records.webhooks if _accepted(one)]
    told = {_where(one): one.order_sent for one in accepted}
    parked = _parked_until(accepted, evidence.dead_letters)
    changed = {change.url: change.order for change in records.changes}
    held = {_key_of(listing): listing["current"] for listing in evidence.listings if not listing["deleted"]}
    return _sorted(
        f"connection {connection} {url}: told in #{order}, and is not so"
        for (connection, url), order in told.items()
        if parked.get((connection, url), 0) < order > changed.get(url, order)
        and canonical(held.get(_key_at(connection, url))) != canonical(world.items.get(url))
    )


def _accepted(webhook: WebhookRecord) -> bool:
    return webhook.status is not None and 200 <= webhook.status < 300


def _unanswered(accepted: Sequence[WebhookRecord], evidence: Evidence) -> Iterator[str]:
    asked_last: dict[str, int] = defaultdict(int)
    for call in evidence.records.calls:
        if _conclusive(call):
            asked_last[call.url] = max(asked_last[call.url], call.order_began)
    dead = evidence.dead_letters
    parked = _parked_until(accepted, dead)
    for one in accepted:
        if asked_last[one.url] > one.order_sent or parked.get(_where(one), 0) >= one.order_sent:
            continue
        if one.delivery_id is None or one.delivery_id not in {_delivery(letter) for letter in dead}:
            yield f"#{one.order_sent} connection {one.connection_id} {one.url} (delivery {one.delivery_id})"


def _unmarked(webhooks: Iterable[WebhookRecord], evidence: Evidence) -> Iterator[str]:
    """Whatever made good for it, a target knows the last webhook that was taken up for it, or one that was redelivered.

    Nothing is said where one was not accepted that may have been taken all the same.
    """
    known = {(int(one["connectionId"]), str(one["url"])): one["deliveryId"] for one in evidence.targets}
    sent: dict[tuple[int, str], list[WebhookRecord]] = defaultdict(list)
    for one in webhooks:
        if not one.lost and _where(one) in known:
            sent[_where(one)].append(one)
    parked = _parked_until([one for told in sent.values() for one in told], evidence.dead_letters)
    for where, told in sent.items():
        latest = max(told, key=lambda one: one.order_sent)
        near = [one for one in told if one.sent_at >= latest.sent_at - REDELIVERED_SECONDS]
        if parked.get(where, 0) >= latest.order_sent:
            continue
        if all(map(_accepted, near)) and known[where] not in {one.delivery_id for one in near}:
            yield f"#{latest.order_sent} connection {where[0]} {where[1]}: its target knows {known[where]} as the last"


def _conclusive(call: CallRecord) -> bool:
    return call.status in _CONCLUSIVE and not _SPOILT.intersection(call.fault.split())


def _where(webhook: WebhookRecord) -> tuple[int, str]:
    return webhook.connection_id, webhook.url


def _parked_until(accepted: Iterable[WebhookRecord], dead: Sequence[Json]) -> dict[tuple[int, str], int]:
    """By connection and URL, the latest webhook that is parked: those before it for the same target are one with it."""
    sent = {one.delivery_id: one for one in accepted if one.delivery_id}
    until: dict[tuple[int, str], int] = {}
    for letter in dead:
        if latest := sent.get(_delivery(letter) or ""):
            until[_where(latest)] = max(until.get(_where(latest), 0), latest.order_sent)
    return until


def _delivery(letter: Json) -> str | None:
    """The delivery that a dead letter is about; pages carry it in their source."""
    body = letter.get("body")
    if not isinstance(body, Mapping):
        return None
    found = body.get("deliveryId") or (body.get("source") or {}).get("deliveryId")
    return None if found is None else str(found)


# --- tokens


def may_be_lost(evidence: Evidence) -> int:
    """How many refresh tokens were used up for a pair that may not have come, and refused when they were presented once
    more: as often a person may have to be called."""
    came = _came(evidence)
    renewals = [one for one in evidence.records.tokens if one.grant_type == "refresh_token"]
    in_doubt = {one.presented for one in renewals if one.issued and one.order_began not in came}
    return len(in_doubt & {one.presented for one in renewals if one.outcome.startswith("reused")})


def codes_in_doubt(evidence: Evidence) -> int:
    """How many codes were used up for a pair that may not have come: as often a person may hear that one is refused."""
    came, tokens = _came(evidence), evidence.records.tokens
    return sum(bool(one.issued) and one.grant_type == "authorization_code" and one.order_began not in came
               for one in tokens)  # fmt: skip


def _came(evidence: Evidence) -> set[int]:
    """Of the requests whose answers have come, the numbers: no fault, no line and no crash was in their way."""
    tokens = sorted(evidence.records.tokens, key=lambda one: one.order_began)
    lost = {one.order_began for one in tokens if not _has_verdict(one)}
    for since, until in (*evidence.doubtful, *evidence.crashes):
        lost |= {one.order_began for one in tokens if _overlaps(one, since, until)}
    for since, _ in evidence.crashes:  # what was answered right before may not have been kept yet
        kept = _moment(evidence, since) - KEPT_SECONDS
        before = [one for one in tokens if one.order_began < since][-1:]
        lost |= {one.order_began for one in before if (one.ended_at or one.began_at) >= kept}
    return {one.order_began for one in tokens} - lost


def _moment(evidence: Evidence, order: int) -> float:
    """When the counter stood there, about: when the last call or request for tokens before it began."""
    asked: list[CallRecord | TokenRecord] = [*evidence.records.calls, *evidence.records.tokens]
    return max((one.began_at for one in asked if one.order_began <= order), default=0.0)


def _overlaps(one: TokenRecord, since: int, until: int) -> bool:
    return one.order_began <= until and since <= (one.order_ended or until)


def _overlapping(evidence: Evidence) -> Iterator[str]:
    """Requests whose end nobody saw count as a moment: who sent them may be dead."""
    ends = 0
    for one in sorted(evidence.records.tokens, key=lambda one: one.order_began):
        if any(_overlaps(one, *doubt) for doubt in evidence.doubtful):
            continue
        if one.order_began < ends:
            yield f"#{one.order_began} {one.grant_type} began before the request before it had ended"
        ends = max(ends, one.order_ended or 0)


def _presented_again(evidence: Evidence) -> Iterator[str]:
    answered: dict[str, int] = {}
    came = _came(evidence)
    for one in sorted(evidence.records.tokens, key=lambda one: one.order_began):
        if earlier := answered.get(one.presented):
            yield f"#{one.order_began} {one.grant_type} {one.presented} was answered in #{earlier}"
        if one.presented and one.order_began in came:
            answered[one.presented] = one.order_began


def _has_verdict(one: TokenRecord) -> bool:
    if one.order_ended is None or one.outcome in _NO_VERDICT or _DOUBTFUL & {*one.fault.split()}:
        return False
    return (one.ended_at or one.began_at) - one.began_at < GIVEN_UP_SECONDS


# --- events


def _duplicates(events: Iterable[Json]) -> Iterator[str]:
    for event_id, count in Counter(str(event["id"]) for event in events).items():
        yield from [event_id] * (count - 1)


def _by_listing(events: Iterable[Json]) -> dict[str, dict[int, dict[str, Json]]]:
    """listingId → version → event id → data."""
    found: dict[str, dict[int, dict[str, Json]]] = defaultdict(lambda: defaultdict(dict))
    for event in events:
        data = event["data"]
        found[str(data["listingId"])][int(data["version"])].setdefault(str(event["id"]), data)
    return found


Changes = Mapping[str, Mapping[int, Mapping[str, Json]]]


def _gaps(changes: Changes, stored: Mapping[str, Json]) -> Iterator[str]:
    for listing_id in changes.keys() | stored.keys():
        told = changes.get(listing_id, {})
        last = max([*told, int(stored.get(listing_id, {}).get("version", 0))])
        yield from (f"{listing_id} version {version}" for version in range(1, last + 1) if version not in told)


def _clashes(changes: Changes) -> Iterator[str]:
    for listing_id, versions in changes.items():
        for version, by_id in versions.items():
            if len(by_id) > 1:
                yield f"{listing_id} version {version}: events {', '.join(sorted(by_id))}"


def _phantoms(changes: Changes, stored: Mapping[str, Json]) -> Iterator[str]:
    for listing_id, versions in changes.items():
        known = int(stored.get(listing_id, {}).get("version", 0))
        before: Any = None
        for version in sorted(versions):
            for event_id, data in versions[version].items():
                name = f"{listing_id} version {version} (event {event_id})"
                if version > known:
                    yield f"{name}: the store has version {known}"
                elif mistake := _mistake(data, before, follows=version == 1 or version - 1 in versions):
                    yield f"{name}: {mistake}"
            before = next(iter(versions[version].values()))["current"]


def _mistake(data: Json, before: Any, *, follows: bool) -> str:
    """Why an event tells no change; empty when it does. `before`: what the version before said."""
    previous, current = data["previous"], data["current"]
    if canonical(previous) == canonical(current):
        return "previous and current are the same"
    if follows and canonical(previous) != canonical(before):
        return "previous is not what the version before said"
    kind = "deleted" if current is None else "created" if previous is None else "updated"
    return "" if data["change"] == kind else f"change says {data['change']}, its members say {kind}"


def _replay_differs(changes: Changes, stored: Mapping[str, Json]) -> Iterator[str]:
    for listing_id in changes.keys() | stored.keys():
        versions, listing = changes.get(listing_id), stored.get(listing_id)
        replayed = None if not versions else next(iter(versions[max(versions)].values()))["current"]
        held = None if listing is None or listing["deleted"] else listing["current"]
        if canonical(replayed) != canonical(held):
            yield f"{listing_id}: {_summary(replayed)} by the events, {_summary(held)} in the store"


def _summary(value: Any) -> str:
    text = canonical(value)
    return "nothing" if value is None else text if len(text) <= 100 else f"{text[:100]}…"


# --- the store and the world


def _stale(world: Truth, listings: Iterable[Json]) -> Iterator[str]:
    held = {_key_of(listing): listing["current"] for listing in listings if not listing["deleted"]}
    for connection, urls in world.expected.items():
        for url in urls:
            if _key_at(int(connection), url) not in held:
                yield f"connection {connection} {url}: is missing"
    true = {_key_at(0, url)[1:]: (url, item) for url, item in world.items.items()}
    for key, current in held.items():
        if key[1:] not in true:
            yield f"connection {key[0]} {key[1]} {key[2]}: is no more"
            continue
        url, item = true[key[1:]]
        if canonical(item) != canonical(current):
            yield f"connection {key[0]} {url}: differs in {', '.join(_differing(item, current))}"


def _key_of(listing: Json) -> Key:
    return int(listing["connectionId"]), str(listing["attributeType"]), str(listing["itemId"])


def _key_at(connection_id: int, url: str) -> Key:
    """`…/resources/7` → connection, `resources`, `7`."""
    noun, item_id = url.rsplit("/", 2)[1:]
    return connection_id, noun, item_id


def _differing(one: Any, other: Any) -> list[str]:
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return ["kind"]
    return sorted(
        name
        for name in one.keys() | other.keys()
        if name not in one or name not in other or canonical(one[name]) != canonical(other[name])
    )


def _sorted(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(found))
