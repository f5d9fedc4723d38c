"""The story as lines of a screen: what the listing is now, then how it came to be so. Pure but for the colours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from textwrap import wrap
from typing import Any

from rich.text import Text

from common.identity import place_of
from ops.why.ask import Answers
from ops.why.story import Change, Entry, Look, Webhook, moment_of, story_of
from ops.why.values import changed_values, shortened

Json = Mapping[str, Any]

LABEL = 11
INDENT = " " * (8 + 2 + LABEL + 2)

_WHY = {"second_look": "second look", "hand": "by hand"}
_WANTED = {"webhook": "by a webhook", "resync": "by a resync", "hand": "by hand"}
_OUTCOMES = {"put_off": "put off", "parked": "parked", "gave_up": "given up", "gone": "gone"}
_STYLES = {"put_off": "yellow", "parked": "red", "gave_up": "yellow", "gone": "magenta"}


def screen(answers: Answers, now: datetime, width: int = 80) -> list[Text]:
    """All lines; `now` is the reader's clock, `width` what a line should hold."""
    return [*_head(answers, now, width), Text(), *_timeline(answers, width)]


# --- what it is now -----------------------------------------------------------------------------------------------


def _head(answers: Answers, now: datetime, width: int) -> Iterator[Text]:
    listing = answers.listing
    if listing is None:
        yield _row("listing", "none yet: nothing was ever read from this URL", "yellow")
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


def _row(name: str, text: str, style: str = "") -> Text:
    return Text.assemble((f"{name:<{LABEL}} ", "bold"), (text, style))


def _wrapped(text: str, room: int) -> list[str]:
    """Lines of a text; addresses and ids stay whole, to be copied."""
    return wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]


def _ours(listing: Json) -> Iterator[Text]:
    names = {"locationId": "location", "resourceId": "resource", "resourceType": "type"}
    told = [f"{name} {listing[member]}" for member, name in names.items() if listing[member] is not None]
    if told:
        yield _row("ours", ", ".join(told))


def _title(answers: Answers, listing: Json, width: int) -> Text:
    """Which one, and its name or the one that it last had."""
    subject = "{connectionId}/{attributeType}/{itemId}".format_map(listing)
    bodies = [listing["current"], *(one["previous"] for one in answers.history if one["kind"] == "change")]
    named = next((body for body in bodies if isinstance(body, dict)), {})
    name = next((f"  “{named[name]}”" for name in ("Name", "name", "title") if named.get(name)), "")
    return Text.assemble((subject, "bold"), shortened(name, "", width - len(subject))[0])


def _now(listing: Json, now: datetime) -> Text:
    state, style = ("deleted", "magenta") if listing["deleted"] else ("live", "green")
    words = [f"version {listing['version']}, {state}"]
    words += [f"since {_ago(moment_of(listing['changedAt']), now)}"] if listing["changedAt"] else []
    return _row("now", ", ".join(words), style)


def _last_told(answers: Answers, now: datetime) -> Iterator[Text]:
    told = [target for target in answers.targets if target["askedAt"]]
    if told:
        latest = max(told, key=lambda target: moment_of(target["askedAt"]))
        where = "" if _is_own(answers, latest) else " for its collection"
        yield _row("last told", f"{_ago(moment_of(latest['askedAt']), now)}, by a webhook{where}")


def _last_read(answers: Answers, now: datetime) -> Iterator[Text]:
    attempts = [one for one in answers.history if one["kind"] == "attempt"]
    if good := next((one for one in attempts if one["outcome"] in ("answered", "gone")), None):
        where = "" if _is_own(answers, good) else ", in its collection"
        yield _row("last read", f"{_ago(moment_of(good['at']), now)}, with {_status(good)}{where}")
    elif attempts:
        yield _row("last read", "never with success, as far as this goes back", "red")


def _targets(answers: Answers, now: datetime) -> Iterator[Text]:
    for target in answers.targets:
        name = "target" if _is_own(answers, target) else "collection"
        text, style = _standing(target, now)
        yield _row(name, text, style)
        if target["state"] in ("due", "waiting") and target["lastError"]:
            tries = f" ({_times(target['attempts'], 'failure')} in a row)" if target["attempts"] else ""
            yield _row("", f"last time: {target['lastError']}{tries}", style)
    if not answers.targets:
        yield _row("target", "none: its own URL was never wanted by itself")


def _standing(target: Json, now: datetime) -> tuple[str, str]:
    wanted = f"wanted {_WANTED.get(target['reason'], target['reason'])}"
    match target["state"]:
        case "fetching":
            return f"{wanted}, being fetched; its lease ends {_coming(target['leaseUntil'], now)}", "cyan"
        case "waiting":
            return f"{wanted}, waits until {_coming(target['notBefore'], now)}", "yellow"
        case "due":
            return f"{wanted}, due: a fetch worker takes it up next", "yellow"
    if target["lastError"]:
        return f"given up after {_status_of(target['lastStatus'])}: {target['lastError']}", "red"
    answered = f"answered with {_status_of(target['lastStatus'])}"
    if target["recheckAt"]:
        return f"{answered}; a second look at {_coming(target['recheckAt'], now)}", ""
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
        yield _row("connection", f"unusually silent since {_ago(moment_of(connection['silentSince']), now)}", "yellow")
    if answers.listing and answers.listing["unmapped"]:
        yield _row("unmapped", "left alone until a webhook for the item itself", "yellow")
    suspect = answers.listing["suspect"] if answers.listing else None
    if suspect:
        yield _row("suspect", _suspicion(suspect["state"], answers.connection_id), "yellow")
    for until in sorted({one["hostBlockedUntil"] for one in answers.targets if one["hostBlockedUntil"]}):
        if moment_of(until) > now:
            yield _row("API", f"asked us to be left alone until {_coming(until, now)}", "yellow")
    for letter in answers.dead_letters:
        stage = letter["queue"].removeprefix("syncaroo.")
        yield _row(
            "parked", f"{letter['reason']} at {stage}, {_ago(moment_of(letter['at']), now)}; to try again:", "red"
        )
        yield _row("", f"gateway dead-letters replay {letter['id']}", "red")


def _suspicion(state: str, connection_id: int) -> str:
    told = {
        "absent": "absent from its list; deleted when the next complete list lacks it, too",
        "pending": "perhaps gone: its own URL is being asked",
        "held": f"held with too many others: gateway held list {connection_id}",
        "approved": "perhaps gone, and a person agreed: its own URL is being asked",
    }
    return told.get(state, state)


# --- how it came to be so -----------------------------------------------------------------------------------------


def _timeline(answers: Answers, width: int) -> Iterator[Text]:
    if answers.more:
        yield Text("… earlier: --limit shows more", "dim")
    day = None
    for entry in story_of(answers.history):
        moment = _moment(entry)
        if moment.date() != day:
            day = moment.date()
            yield Text(f"{day:%Y-%m-%d} UTC", "bold")
        clock = f"{moment:%H:%M:%S}"
        yield from _told(answers, entry, clock, width)
    if not answers.history:
        yield Text("No attempts and no events are kept: it was told before this history began.", "dim")


def _moment(entry: Entry) -> datetime:
    match entry:
        case Webhook():
            return entry.at
        case Look():
            return moment_of(entry.attempts[0]["at"])
        case Change():
            return moment_of(entry.change["at"])


def _told(answers: Answers, entry: Entry, clock: str, width: int) -> Iterator[Text]:
    match entry:
        case Webhook():
            yield _line(
                clock, "webhook", f"delivery {entry.delivery_id or 'unknown'}", f"#{entry.number}", "bold", width
            )
            if entry.late >= timedelta(seconds=1):
                yield Text(f"{INDENT}taken up only {_length(entry.late)} later", "yellow")
        case Look():
            label, text = _looked(answers, entry)
            style = _STYLES.get(entry.last["outcome"], "")
            first, *rest = _wrapped(text, width - len(INDENT))
            yield _line(clock, label, first, _numbers(entry.attempts), style, width)
            yield from (Text(f"{INDENT}{more}", style) for more in rest)
            for change in entry.changes:
                yield from _version(change, width)
        case Change():
            yield _line(clock, entry.change["reason"], _without_attempt(entry.change), "", "", width)
            yield from _version(entry.change, width)


def _line(clock: str, label: str, text: str, numbers: str, style: str, width: int) -> Text:
    """Time, label and text; numbers at the right edge, where there is room for them."""
    left = f"{clock}  {label:<{LABEL}}  {text}"
    room = width - len(left) - len(numbers)
    line = Text.assemble(f"{clock}  ", (f"{label:<{LABEL}}", "bold"), "  ", (text, style))
    return line.append(" " * room + numbers, "dim") if numbers and room > 1 else line


def _looked(answers: Answers, look: Look) -> tuple[str, str]:
    attempt = look.last
    if len(look.attempts) > 1:
        first, last = moment_of(look.attempts[0]["at"]), moment_of(attempt["at"])
        alike = "nothing changed" if attempt["outcome"] == "answered" else _result(answers, look)
        return f"{len(look.attempts)} times", f"until {_clock(last, first)}: {alike}"
    reason, tries = str(attempt["reason"]), attempt["attempt"] + 1
    words = [] if _is_own(answers, attempt) else ["collection"]
    words += [f"attempt {tries}"] if tries > 1 and reason != "webhook" else []
    label = f"attempt {tries}" if reason == "webhook" else _WHY.get(reason, reason)
    return label, ", ".join([*words, _result(answers, look)])


def _result(answers: Answers, look: Look) -> str:
    attempt = look.last
    words = [_status(attempt)]
    words += [_times(attempt["pages"], "page")] if attempt["pages"] > 1 else []
    if attempt["outcome"] in _OUTCOMES:
        words.append(_OUTCOMES[attempt["outcome"]])
    elif not look.changes:
        words.append("not compared yet" if _is_ahead(answers, attempt) else "nothing changed")
    told = attempt["detail"] if attempt["detail"] != f"answered {attempt['status']}" else None
    return ", ".join(words) + (f": {told}" if told else "")


def _is_ahead(answers: Answers, attempt: Json) -> bool:
    """Whether reconcile has not seen its answer yet, as the listing's latest answer is an older one."""
    listing = answers.listing
    return _is_own(answers, attempt) and listing is not None and bool(listing["began"] < attempt["started"])


def _version(change: Json, width: int) -> Iterator[Text]:
    for name, values in changed_values(change, width - len(INDENT)):
        yield Text.assemble(INDENT, (f"{name}  ", "cyan"), values)
    told = f"version {change['version']} {change['change']}"
    if change["publishedAt"] is None:
        yield Text.assemble(INDENT, (f"→ {told}", "green"), (", its event waits for the relay", "yellow"))
    else:
        published = moment_of(change["publishedAt"])
        late = published - moment_of(change["at"])
        later = f"{_length(late)} later" if late >= timedelta(seconds=1) else f"{published:%H:%M:%S}"
        yield Text.assemble(INDENT, (f"→ {told}", "green"), f", event published {later}")


def _without_attempt(change: Json) -> str:
    cause = change["cause"]
    if cause is None:
        return "told by a webhook alone, nothing was fetched"
    return f"by an attempt that is not kept, numbers {cause['began']}-{cause['ended']}"


# --- words --------------------------------------------------------------------------------------------------------


def _is_own(answers: Answers, thing: Json) -> bool:
    return place_of(thing["url"]).path == answers.path


def _status(attempt: Json) -> str:
    return _status_of(attempt["status"])


def _status_of(status: int | None) -> str:
    return str(status) if status else "no answer"


def _numbers(attempts: Sequence[Json]) -> str:
    return f"#{attempts[0]['started']}-{attempts[-1]['ended']}"


def _times(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _ago(moment: datetime, now: datetime) -> str:
    return f"{_clock(moment, now)} ({_length(max(now - moment, timedelta(0)))} ago)"


def _coming(text: str, now: datetime) -> str:
    moment = moment_of(text)
    return f"{_clock(moment, now)} (in {_length(max(moment - now, timedelta(0)))})"


def _clock(moment: datetime, now: datetime) -> str:
    return f"{moment:%H:%M:%S}" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def _length(gap: timedelta) -> str:
    """`0.4 s`, `12 s`, `3 min`, `5 h`, `12 days`: two figures are enough for a person."""
    seconds = gap.total_seconds()
    for unit, name in ((86400 * 2, "days"), (3600 * 2, "h"), (60 * 2, "min")):
        if seconds >= unit:
            return f"{int(seconds // (unit // 2))} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
