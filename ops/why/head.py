"""What the listing is now, how its targets stand, and what is in the way, as lines of a screen. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from rich.text import Text

from common.foreign import harmless, name_of
from common.story import moment_of
from common.words import things
from ops.why.ask import Answers
from ops.why.values import shortened
from ops.why.words import LABEL, ago, coming, is_own, status_of

Json = Mapping[str, Any]

_WANTED = {"webhook": "by a webhook", "resync": "by a resync", "hand": "by hand"}


def head(answers: Answers, now: datetime, width: int) -> Iterator[Text]:
    """The lines; `now` is the reader's clock."""
    listing = answers.listing
    if listing is None:
        yield _row("listing", *_none_there(answers))
        yield _row("path", answers.path)
        yield _row("connection", str(answers.connection_id))
    else:
        yield _title(answers, listing, width)
        yield _row("listing", listing["listingId"])
        yield _row("path", answers.path)
        yield from _ours(listing)
        yield _now(listing, now)
    yield from _last_told(answers, now)
    yield from _last_read(answers, now)
    yield from _targets(answers, now)
    yield from _obstacles(answers, now)


def _none_there(answers: Answers) -> tuple[str, str]:
    if any(one.get("outcome") == "answered" for one in answers.history):
        return "none: this URL is a list, and its items have stories of their own", ""
    return "none yet: nothing was ever read from this URL", "yellow"


def _row(name: str, text: str, style: str = "") -> Text:
    return Text.assemble((f"{name:<{LABEL}} ", "bold"), (text, style))


def _ours(listing: Json) -> Iterator[Text]:
    names = {"locationId": "location", "resourceId": "resource", "resourceType": "type"}
    told = [f"{name} {listing[member]}" for member, name in names.items() if listing[member] is not None]
    if told:
        yield _row("ours", ", ".join(told))


def _title(answers: Answers, listing: Json, width: int) -> Text:
    """Which one, and its name or the one that it last had."""
    subject = "{connectionId}/{attributeType}/{itemId}".format_map(listing)
    bodies = [listing["current"], *(one["previous"] for one in answers.history if one["kind"] == "change")]
    name = name_of(next((body for body in bodies if isinstance(body, dict)), None))
    shown = shortened(harmless(f"  “{name}”"), "", width - len(subject))[0] if name else ""
    return Text.assemble((subject, "bold"), shown)


def _now(listing: Json, now: datetime) -> Text:
    state, style = ("deleted", "magenta") if listing["deleted"] else ("live", "green")
    words = [f"version {listing['version']}, {state}"]
    words += [f"since {ago(moment_of(listing['changedAt']), now)}"] if listing["changedAt"] else []
    return _row("now", ", ".join(words), style)


def _last_told(answers: Answers, now: datetime) -> Iterator[Text]:
    told = [target for target in answers.targets if target["askedAt"]]
    if told:
        latest = max(told, key=lambda target: moment_of(target["askedAt"]))
        where = "" if is_own(answers, latest) else " for its collection"
        yield _row("last told", f"{ago(moment_of(latest['askedAt']), now)}, by a webhook{where}")


def _last_read(answers: Answers, now: datetime) -> Iterator[Text]:
    attempts = [one for one in answers.history if one["kind"] == "attempt"]
    if good := next((one for one in attempts if one["outcome"] in ("answered", "gone")), None):
        where = "" if is_own(answers, good) else ", in its collection"
        yield _row("last read", f"{ago(moment_of(good['at']), now)}, with {status_of(good['status'])}{where}")
    elif attempts:
        yield _row("last read", "never with success, as far as this goes back", "red")


def _targets(answers: Answers, now: datetime) -> Iterator[Text]:
    for target in answers.targets:
        name = "target" if is_own(answers, target) else "collection"
        text, style = _standing(target, now)
        yield _row(name, text, style)
        if target["state"] in ("due", "waiting") and target["lastError"]:
            tries = f" ({things(target['attempts'], 'failure')} in a row)" if target["attempts"] else ""
            yield _row("", f"last time: {target['lastError']}{tries}", style)
    if not answers.targets:
        yield _row("target", "none: its own URL was never wanted by itself")


def _standing(target: Json, now: datetime) -> tuple[str, str]:
    wanted = f"wanted {_WANTED.get(target['reason'], target['reason'])}"
    match target["state"]:
        case "fetching":
            return f"{wanted}, being fetched; its lease ends {coming(target['leaseUntil'], now)}", "cyan"
        case "waiting":
            return f"{wanted}, waits until {coming(target['notBefore'], now)}", "yellow"
        case "due":
            return f"{wanted}, due: a fetch worker takes it up next", "yellow"
    if target["lastError"]:
        return f"given up after {status_of(target['lastStatus'])}: {target['lastError']}", "red"
    answered = f"answered with {status_of(target['lastStatus'])}"
    if target["recheckAt"]:
        return f"{answered}; a second look at {coming(target['recheckAt'], now)}", ""
    return f"{answered}, nobody waits for it", ""


def _obstacles(answers: Answers, now: datetime) -> Iterator[Text]:
    """What a person must do, or wait for, before anything moves."""
    if answers.grant.get("state") != "active":
        state = str(answers.grant.get("state")).replace("_", " ")
        yield _row("grant", f"{state}: nothing is fetched until /connect is opened", "red")
    connection = answers.connection or {}
    if connection.get("state") == "revoked":
        yield _row("connection", "revoked: not synced until its user authorises it again", "red")
    elif connection.get("silentSince"):
        yield _row("connection", f"unusually silent since {ago(moment_of(connection['silentSince']), now)}", "yellow")
    if answers.listing and answers.listing["unmapped"]:
        yield _row("unmapped", "left alone until a webhook for the item itself", "yellow")
    suspect = answers.listing["suspect"] if answers.listing else None
    if suspect:
        yield _row("suspect", _suspicion(suspect["state"], answers.connection_id), "yellow")
    for until in sorted({one["hostBlockedUntil"] for one in answers.targets if one["hostBlockedUntil"]}):
        if moment_of(until) > now:
            yield _row("API", f"asked us to be left alone until {coming(until, now)}", "yellow")
    for letter in answers.dead_letters:
        stage = letter["queue"].removeprefix("syncaroo.")
        yield _row(
            "parked", f"{letter['reason']} at {stage}, {ago(moment_of(letter['at']), now)}; to try again:", "red"
        )
        yield _row("", f"gateway dlq replay {letter['id']}", "red")


def _suspicion(state: str, connection_id: int) -> str:
    told = {
        "absent": "absent from its list; deleted when the next complete list lacks it, too",
        "pending": "perhaps gone: its own URL is being asked",
        "held": f"held with too many others: gateway held list {connection_id}",
        "approved": "perhaps gone, and a person agreed: its own URL is being asked",
    }
    return told.get(state, state)
