"""The sign-ins that a browser has begun and not finished, kept in its own session: each is used once."""

from __future__ import annotations

import secrets

import msgspec
from aiohttp_session import Session

from common.clock import wall_seconds
from ingress.oidc.rules import Attempt
from ingress.parameters import BadInput

KEY = "oidc"
LIFETIME_SECONDS = 600
MOST = 4
MAX_BACK = 2000
"""Of all addresses to go back to together: browsers keep cookies up to 4096 bytes only."""


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
    if len(attempt.back) > MAX_BACK:
        raise BadInput("this address is too long to come back to after signing in")
    begun = _Begun(secrets.token_urlsafe(24), attempt.verifier, attempt.nonce, attempt.back, wall_seconds())
    kept = [*_begun(session), begun][-MOST:]
    while sum(len(one.back) for one in kept) > MAX_BACK:
        kept = kept[1:]
    _keep(session, kept)
    return begun.state


def find(session: Session, state: str) -> Attempt | None:
    """The attempt of that state; None when it is of another session, too old, or used."""
    found = next((one for one in _begun(session) if one.state == state), None)
    return None if found is None else Attempt(found.verifier, found.nonce, found.back)


def forget(session: Session, state: str) -> None:
    """It is used."""
    _keep(session, [one for one in _begun(session) if one.state != state])


def _begun(session: Session) -> list[_Begun]:
    try:
        kept = msgspec.convert(session.get(KEY, []), list[_Begun])
    except msgspec.ValidationError:
        return []
    return [one for one in kept if wall_seconds() - one.at <= LIFETIME_SECONDS]


def _keep(session: Session, begun: list[_Begun]) -> None:
    session[KEY] = msgspec.to_builtins(begun)
