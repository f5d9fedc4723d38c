"""Listings: searched for, and one with its story, as `gateway why` tells it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from common.codec import decode, dumps
from common.identity import plural
from common.story import Change, Entry, Look, Webhook, moment_of, story_of
from ingress.admin.rules import ListingFilter, Paging, TargetFilter, path_of
from ingress.admin.store.listings import Listing, ListingStore
from ingress.admin.store.targets import Target, TargetStore
from ingress.console.rules import Difference, differences, shown, title_of
from ingress.console.visit import Visit
from ingress.parameters import check_text

FOUND = 100
PAST = 40
"""Versions and attempts of a story, the latest."""
MOST_DIFFERENCES = 30
_SUBJECT = re.compile(r"([0-9]{1,18})/([^/]+)/(.+)")
_NAMES = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Line:
    """One step of a story as it is shown; times are those of the hosts that read them, for the reader only."""

    kind: str
    at: Any
    text: str
    mood: str = "quiet"
    about: str = ""
    differences: Sequence[Difference] = ()
    more: int = 0


class Listings:
    """Pages."""

    def __init__(self, listings: ListingStore, targets: TargetStore) -> None:
        self._listings = listings
        self._targets = targets

    async def search(self, visit: Visit) -> web.StreamResponse:
        """GET: `q` is a listingId, connection/collection/item, a URL of Syncaroo's API, its path, or an item's id."""
        asked = check_text(visit.query.get("q", "").strip()[:2000], "q")
        found = await self._found(asked) if asked else []
        context = {"asked": asked, "found": [(one, title_of(_body(one))) for one in found], "most": FOUND}
        return visit.page("listings.html", context)

    async def show(self, visit: Visit) -> web.StreamResponse:
        """GET: what it is now, and how it came to be so."""
        listing = await self._listings.listing(visit.request.match_info["listingId"])
        if listing is None:
            return visit.missing("listing")
        past = await self._listings.history(listing, Paging(None, PAST))
        history = [decode(dumps(told), dict[str, Any]) for _, told in past]
        filters = TargetFilter(listing.connection_id, listing.url or listing.path, listing.path)
        body = _body(listing)
        context = {
            "listing": listing,
            "name": title_of(body) or _last_name(history),
            "targets": await self._targets.targets(filters, Paging(None, 10)),
            "story": [line for entry in reversed(story_of(history)) for line in _lines(entry)],
            "is_cut": len(past) == PAST,
            "shown": shown(body, whole="whole" in visit.query),
            "standing": standing,
        }
        return visit.page("listing.html", context)

    async def _found(self, asked: str) -> Sequence[Listing]:
        paging = Paging(None, FOUND)
        if _NAMES.fullmatch(asked):
            known = await self._listings.listing(asked)
            return [] if known is None else [known]
        if subject := _SUBJECT.fullmatch(asked):
            number, kind, item_id = subject.groups()
            wanted = ListingFilter(int(number), None, plural(kind), item_id, None)
        elif "/" in asked:
            wanted = ListingFilter(None, None, None, None, path_of({"url": asked}))
        else:
            wanted = ListingFilter(None, None, None, asked, None)
        found = await self._listings.listings(wanted, paging)
        if not found and re.fullmatch("[0-9]{1,18}", asked):
            return await self._listings.listings(ListingFilter(int(asked), None, None, None, None), paging)
        return found


def _body(listing: Listing) -> Any:
    return decode(bytes(listing.current), Any)


def _last_name(history: Sequence[Mapping[str, Any]]) -> str:
    """Of one that is deleted: what it was called."""
    return next((name for one in history if one["kind"] == "change" and (name := title_of(one["previous"]))), "")


def _lines(entry: Entry) -> list[Line]:
    """The latest step first."""
    match entry:
        case Webhook():
            late = f", taken up {entry.late.total_seconds():.1f} s later" if entry.late.total_seconds() >= 1 else ""
            return [Line("webhook", entry.at, f"A webhook came{late}", about=entry.delivery_id or "")]
        case Look():
            return [*map(_version, reversed(entry.changes)), _look(entry)]
        case Change():
            return [_version(entry.change)]


def _look(look: Look) -> Line:
    last = look.last
    status = str(last["status"]) if last["status"] else "no answer"
    often = f"{len(look.attempts)} times " if len(look.attempts) > 1 else ""
    pages = f", {last['pages']} pages" if last["pages"] > 1 else ""
    outcome = {
        "answered": "answered" if look.changes else "answered, nothing changed", "gone": "answered: it is gone",
        "put_off": "put off", "parked": "parked", "gave_up": "given up",
    }.get(last["outcome"], last["outcome"])  # fmt: skip
    mood = {"answered": "quiet", "gone": "slow", "put_off": "slow"}.get(last["outcome"], "bad")
    detail = f": {last['detail']}" if last["detail"] and last["detail"] != f"answered {last['status']}" else ""
    text = f"Asked {often}({last['reason'].replace('_', ' ')}): {status}{pages}, {outcome}{detail}"
    return Line("attempt", moment_of(last["at"]), text, mood, last["url"])


def _version(change: Mapping[str, Any]) -> Line:
    patch = change["patch"] if change["change"] == "updated" else []
    mood = {"created": "good", "deleted": "slow"}.get(change["change"], "quiet")
    published = "its event waits for the relay"
    if change["publishedAt"]:
        gap = moment_of(change["publishedAt"]) - moment_of(change["at"])
        published = f"its event was published {max(0.0, gap.total_seconds()):.1f} s later"
    return Line(
        "version",
        moment_of(change["at"]),
        f"Version {change['version']} {change['change']}: {published}",
        mood,
        "" if change["cause"] else "told by a webhook alone, nothing was fetched",
        differences(patch, change["previous"], MOST_DIFFERENCES),
        max(0, len(patch) - MOST_DIFFERENCES),
    )


def standing(target: Target) -> str:
    """How a target stands, in words."""
    match target.state:
        case "fetching":
            return "is being fetched"
        case "waiting":
            return "waits for a later time"
        case "due":
            return "is due: a fetch worker takes it up next"
    if target.last_error:
        return f"given up: {target.last_error}"
    return "answered, nobody waits for it" if target.answered else "was never asked"
