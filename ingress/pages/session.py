"""Who is using the browser: an encrypted cookie, and the token that ties a form to it.

A session holds a user (`USER`) and an operator (`ADMIN`), each when signed in. Nothing of it is kept on the server.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Literal

from aiohttp import web
from aiohttp_session import AbstractStorage, Session, get_session, new_session
from aiohttp_session.cookie_storage import EncryptedCookieStorage
from cryptography.fernet import Fernet, MultiFernet

from common.codec import dumps, loads
from common.crypto import Signer, same_secret

Role = Literal["user", "admin"]
USER: Role = "user"
ADMIN: Role = "admin"
_ROLES: tuple[Role, ...] = (USER, ADMIN)

CSRF_FIELD = "csrf"
SESSION_SECONDS = 12 * 3600


class SessionCookie(EncryptedCookieStorage):
    """The cookie: encrypted with the newest of the keys, read with any of them, unreadable ones ignored."""

    def __init__(self, keys: Sequence[str], *, secure: bool, name: str = "gateway") -> None:
        derived = [Fernet(urlsafe_b64encode(key)) for key in Signer(keys, "session-cookie").all_signatures(b"fernet")]
        super().__init__(
            derived[0],
            cookie_name=f"__Host-{name}" if secure else name,
            max_age=SESSION_SECONDS,
            secure=secure,
            httponly=True,
            samesite="Lax",
            encoder=lambda value: dumps(value).decode(),
            decoder=lambda text: loads(text.encode()),
        )
        self._fernet = MultiFernet(derived)  # type: ignore[assignment]  # the same two methods

    def load_cookie(self, request: web.Request) -> str | None:
        """The cookie's text; one that cannot be ours counts as none."""
        cookie = super().load_cookie(request)
        return cookie if cookie and cookie.isascii() else None


class SchemesCookie(AbstractStorage):
    """A cookie for https and another one for plain http, which browsers bring back to where it came from.

    For an address that `SITE_URI` does not tell: `OPS_PORT`, reached through a proxy by https or through a tunnel as
    `http://127.0.0.1`. Of two ports of one host browsers make one: its name is its own.
    """

    def __init__(self, keys: Sequence[str], name: str) -> None:
        super().__init__(max_age=SESSION_SECONDS)
        self._secure = SessionCookie(keys, secure=True, name=name)
        self._plain = SessionCookie(keys, secure=False, name=name)

    async def load_session(self, request: web.Request) -> Session:
        """The session of the cookie for this request's scheme."""
        return await self._of(request).load_session(request)

    async def save_session(self, request: web.Request, response: web.StreamResponse, session: Session) -> None:
        """Into the cookie for this request's scheme."""
        await self._of(request).save_session(request, response, session)

    def _of(self, request: web.Request) -> SessionCookie:
        return self._secure if request.secure else self._plain


async def sign_in(request: web.Request, role: Role, name: str, mark: str = "") -> None:
    """Start a fresh session for this role; nothing but the other role's sign-in is carried over.

    `mark` is given back by `mark_of`: what the account was like, so that the session can end with it.
    """
    old = await get_session(request)
    fresh = await new_session(request)
    for kept in (key for other in _ROLES for key in (other, _mark(other)) if key in old):
        fresh[kept] = old[kept]
    fresh[role] = name
    fresh[_mark(role)] = mark


def signed_in(session: Session, role: Role) -> str | None:
    """Who is signed in in this role."""
    name = session.get(role)
    return name if isinstance(name, str) else None


def mark_of(session: Session, role: Role) -> str:
    """What `sign_in` was given as the account's mark."""
    return str(session.get(_mark(role), ""))


def _mark(role: Role) -> str:
    return f"{role}_mark"


def csrf_token(session: Session) -> str:
    """The token that every form of this session carries in a hidden field `csrf`."""
    token = session.get(CSRF_FIELD)
    if not isinstance(token, str):
        token = secrets.token_urlsafe(32)
        session[CSRF_FIELD] = token
    return token


def is_from_elsewhere(headers: Mapping[str, str], origin: str) -> bool:
    """Whether the browser says that a form was on another site's page; plain clients say nothing.

    `null` is what browsers call the origin of our own pages, whose Referrer-Policy is `no-referrer`.
    """
    return headers.get("Sec-Fetch-Site") == "cross-site" or headers.get("Origin", "null") not in ("null", origin)


def check_csrf(session: Session, form: Mapping[str, str]) -> bool:
    """Whether the form was ours and of this session."""
    expected = session.get(CSRF_FIELD)
    return isinstance(expected, str) and same_secret(form.get(CSRF_FIELD, ""), expected)
