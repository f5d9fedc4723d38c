"""The sign-ins that a browser has begun and not finished, kept in its own session: each is used once."""

from __future__ import annotations

import secrets

import msgspec
from aiohttp_session import Session

from common.clock import wall_seconds
from common.codec import dumps
from common.crypto import same_secret
from ingress.oidc.rules import Attempt
from ingress.parameters import BadInput

KEY = "oidc"
LIFETIME_SECONDS = 600
MOST = 4
MAX_SESSION = 2600
"""Bytes of the whole session with its attempts. Browsers keep 4096 of a cookie with its attributes; encrypted a session
is longer by a third, and a CSRF token and the operator's binding may come to it yet.
"""


class _Begun(msgspec.Struct, frozen=True):
    state: str
    verifier: str
    nonce: str
    back: str
    at: int


def remember(session: Session, attempt: Attempt) -> str:
    """Keep it, and forget the oldest when there are too many → the state by which it is found again.

    Raises:
        BadInput: no cookie can hold an address that long.
    """
    begun = _Begun(secrets.token_urlsafe(24), attempt.verifier, attempt.nonce, attempt.back, wall_seconds())
    kept = [*_begun(session), begun][-MOST:]
    while not _fits(session, kept):
        kept = kept[1:]
    if not kept:
        raise BadInput("this address is too long to come back to after signing in")
    _keep(session, kept)
    return begun.state


def find(session: Session, state: str) -> Attempt | None:
    """The attempt of that state; None when it is of another session, too old, or used."""
    found = next((one for one in _begun(session) if same_secret(state, one.state)), None)
    return None if found is None else Attempt(found.verifier, found.nonce, found.back)


def forget(session: Session, state: str) -> None:
    """It is used."""
    _keep(session, [one for one in _begun(session) if not same_secret(state, one.state)])


def _begun(session: Session) -> list[_Begun]:
    try:
        kept = msgspec.convert(session.get(KEY, []), list[_Begun])
    except msgspec.ValidationError:
        return []
    return [one for one in kept if wall_seconds() - one.at <= LIFETIME_SECONDS]


def _fits(session: Session, begun: list[_Begun]) -> bool:
    return not begun or len(dumps({**session, KEY: msgspec.to_builtins(begun)})) <= MAX_SESSION


def _keep(session: Session, begun: list[_Begun]) -> None:
    session[KEY] = msgspec.to_builtins(begun)
