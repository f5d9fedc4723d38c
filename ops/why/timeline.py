"""How the listing came to be so, as lines of a screen: webhooks, attempts, versions. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from textwrap import wrap
from typing import Any

from rich.text import Text

from common.story import Change, Entry, Look, Webhook, moment_of, story_of
from common.words import things
from ops.why.ask import Answers
from ops.why.values import changed_values
from ops.why.words import LABEL, is_own, length, status_of, time_of

Json = Mapping[str, Any]

INDENT = " " * (8 + 2 + LABEL + 2)

_WHY = {"second_look": "second look", "hand": "by hand"}
_OUTCOMES = {"put_off": "put off", "parked": "parked", "gave_up": "given up", "gone": "gone"}
_STYLES = {"put_off": "yellow", "parked": "red", "gave_up": "yellow", "gone": "magenta"}


def timeline(answers: Answers, width: int) -> Iterator[Text]:
    """The lines, the oldest first; `width` is what one should hold."""
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
                yield Text(f"{INDENT}taken up only {length(entry.late)} later", "yellow")
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
        alike = "nothing changed" if _is_quiet(answers, attempt) else _result(answers, look)
        return f"{len(look.attempts)} times", f"until {time_of(last, first)}: {alike}"
    reason, tries = str(attempt["reason"]), attempt["attempt"] + 1
    words = [] if is_own(answers, attempt) else ["collection"]
    words += [f"attempt {tries}"] if tries > 1 and reason != "webhook" else []
    label = f"attempt {tries}" if reason == "webhook" else _WHY.get(reason, reason)
    return label, ", ".join([*words, _result(answers, look)])


def _result(answers: Answers, look: Look) -> str:
    attempt = look.last
    words = [status_of(attempt["status"])]
    words += [things(attempt["pages"], "page")] if attempt["pages"] > 1 else []
    if attempt["outcome"] in _OUTCOMES:
        words.append(_OUTCOMES[attempt["outcome"]])
    elif not look.changes and answers.listing is not None:
        words.append("not compared yet" if _is_ahead(answers, attempt) else "nothing changed")
    told = attempt["detail"] if attempt["detail"] != f"answered {attempt['status']}" else None
    return ", ".join(words) + (f": {told}" if told else "")


def _is_quiet(answers: Answers, attempt: Json) -> bool:
    """Whether it was compared with a listing, and was alike; a list's items are not looked at here."""
    return attempt["outcome"] == "answered" and answers.listing is not None


def _is_ahead(answers: Answers, attempt: Json) -> bool:
    """Whether reconcile has not seen its answer yet, as the listing's latest answer is an older one."""
    listing = answers.listing
    return is_own(answers, attempt) and listing is not None and bool(listing["began"] < attempt["started"])


def _version(change: Json, width: int) -> Iterator[Text]:
    for name, values in changed_values(change, width - len(INDENT)):
        yield Text.assemble(INDENT, (f"{name}  ", "cyan"), values)
    told = f"version {change['version']} {change['change']}"
    if change["publishedAt"] is None:
        yield Text.assemble(INDENT, (f"→ {told}", "green"), (", its event waits for the relay", "yellow"))
    else:
        published = moment_of(change["publishedAt"])
        late = published - moment_of(change["at"])
        later = f"{length(late)} later" if late >= timedelta(seconds=1) else f"{published:%H:%M:%S}"
        yield Text.assemble(INDENT, (f"→ {told}", "green"), f", event published {later}")
    if change["traceId"] is not None:
        yield Text(f"{INDENT}trace {change['traceId']}", "dim")


def _without_attempt(change: Json) -> str:
    cause = change["cause"]
    if cause is None:
        return "told by a webhook alone, nothing was fetched"
    return f"by an attempt that is not kept, numbers {cause['began']}-{cause['ended']}"


def _wrapped(text: str, room: int) -> list[str]:
    """Lines of a text; addresses and ids stay whole, to be copied."""
    return wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]


def _numbers(attempts: Sequence[Json]) -> str:
    return f"#{attempts[0]['started']}-{attempts[-1]['ended']}"
