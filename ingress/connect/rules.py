"""The way to Syncaroo and back as values, and what an admin reads about how it ended. Pure.

Documented by Syncaroo: the link's five parameters, `code` and `state` on the way back. Ours: what `state` holds, and
that a refusal comes back as RFC 6749's `error`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlencode

import msgspec

from ingress.parameters import BadInput, one

STATE_LIFETIME = timedelta(minutes=10)
GIVEN_UP_AFTER = timedelta(minutes=15)
"""A code that nobody concluded in this time will not be: the token worker gives up after 10 minutes."""
HANDING_ON = timedelta(seconds=10)
"""Longer than the broker is waited for: a code that is not handed on by then has died with its process."""
SLOW_AFTER = timedelta(seconds=20)
FOLLOW_SECONDS = 2

MAX_CODE = 2048
MAX_SHOWN = 200


@dataclass(frozen=True)
class CodeCame:
    """Syncaroo authorised us."""

    state: str
    code: str = field(repr=False)


@dataclass(frozen=True)
class Declined:
    """Syncaroo or its user did not; `error` is theirs, to be shown escaped."""

    state: str
    error: str


def authorize_url(base_url: str, client_id: str, redirect_uri: str, state: str) -> str:
    """The link of the guide, "Getting Syncaroo API Access Tokens"; `scope` is there and blank."""
    query = {
        "clientId": client_id,
        "redirectUri": redirect_uri,
        "responseType": "code",
        "scope": "",
        "state": state,
    }
    return f"{base_url}/api/authorize?{urlencode(query)}"


def read_callback(values: Mapping[str, str]) -> CodeCame | Declined:
    """What Syncaroo sent the admin back with.

    Raises:
        BadInput: neither a code nor an error, or a code without state or of a size that no code has.
    """
    state = values.get("state", "")
    if error := values.get("error"):
        description = one(values, "errorDescription") or ""
        return Declined(state, ": ".join(part[:MAX_SHOWN] for part in (error, description) if part))
    code = values.get("code", "")
    if not state:
        raise BadInput("the state is missing: please start again at /connect")
    if not 0 < len(code) <= MAX_CODE:
        raise BadInput("the code is missing or too long: please start again at /connect")
    return CodeCame(state, code)


@dataclass(frozen=True)
class Attempt:
    """How an attempt stands; `age` since the code came."""

    outcome: str
    detail: str | None
    age: timedelta
    handed_on: bool = True
    """Whether the token worker's queue has the code."""


class View(msgspec.Struct, frozen=True):
    """What is to be read about an attempt. While `follow` is set (seconds) it is asked for again; `again`: there is a
    reason to begin anew. `mood`: good, bad or quiet.
    """

    title: str
    text: str
    mood: str
    detail: str | None = None
    follow: int | None = None
    again: bool = False


def view_of(attempt: Attempt) -> View:
    """What an admin reads."""
    if attempt.outcome == "active":
        return View("Connected to Syncaroo", "We have access to Syncaroo's API. You can close this page.", "good")
    if why := _why_not(attempt):
        return View("Not connected", why, "bad", attempt.detail, again=True)
    text = "Syncaroo has authorised us, and we are fetching our tokens. This page shows by itself what comes of it."
    if attempt.age > SLOW_AFTER:
        text += " It takes longer than usual: is a token worker running, and is Syncaroo up? We go on trying."
    return View("Connecting to Syncaroo", text, "quiet", attempt.detail, follow=FOLLOW_SECONDS)


def _why_not(attempt: Attempt) -> str:
    """Empty while there is hope."""
    unharmed = "Nothing has changed: an access that worked goes on working."
    if attempt.outcome == "refused":
        return f"Syncaroo did not accept this authorization. {unharmed}"
    if attempt.outcome == "failed":
        return f"We could not get Syncaroo's tokens in time. {unharmed}"
    if not attempt.handed_on and attempt.age > HANDING_ON:
        return f"The authorization got lost on its way to the token worker, and by now it is too old. {unharmed}"
    if attempt.age > GIVEN_UP_AFTER:
        return (
            "Nobody has fetched Syncaroo's tokens, and by now the authorization is too old. Is a token worker running?"
        )
    return ""


def declined_view(error: str) -> View:
    """What an admin reads who comes back with an error instead of a code."""
    return View(
        "Not connected", "Syncaroo sent you back without authorising us. Nothing has changed.", "bad", error, None, True
    )
