"""What an authorization, a client and a grant must be, and which refresh tokens still count. Pure.

Documented by Syncaroo: the parameters' names, the code grant without `redirectUri`, the three members of the answer.
RFC 6749 gives the errors; everything else is our decision.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from urllib.parse import unquote_plus, urlencode, urlsplit, urlunsplit

from common.errors import Permanent
from ingress.parameters import BadInput, one, positive_number

MAX_STATE = 4096
REUSE_GRACE = timedelta(seconds=30)
"""A retired refresh token presented this soon after is taken for a crossing of requests, not for a theft."""


class OAuthError(Permanent):
    """An answer of RFC 6749 §5.2, with headers of its own."""

    def __init__(
        self, error: str, description: str, *, status: int = 400, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(error, description)
        self.status = status
        self.headers = headers or {}


@dataclass(frozen=True)
class Authorization:
    """What Syncaroo asks a user for: this connection, and where to come back to."""

    connection_id: int
    client_id: str
    redirect_uri: str
    state: str | None
    challenge: str | None = None


def read_authorization(values: Mapping[str, str], client_id: str, redirect_uris: Sequence[str]) -> Authorization:
    """The parameters of the authorize address.

    Raises:
        BadInput: something is wrong; then nobody is redirected anywhere.
    """
    redirect_uri = one(values, "redirectUri")
    if one(values, "clientId") != client_id:
        raise BadInput("clientId is not one that we know")
    if redirect_uri is None or redirect_uri not in redirect_uris:
        raise BadInput("redirectUri is not one that was registered with us")
    if one(values, "responseType") != "code":
        raise BadInput("responseType must be code")
    connection_id = positive_number(one(values, "connectionId"), "connectionId")
    state = values.get("state")
    if state is not None and len(state) > MAX_STATE:
        raise BadInput("state is too long")
    return Authorization(connection_id, client_id, redirect_uri, state, _challenge(values))


def _challenge(values: Mapping[str, str]) -> str | None:
    """PKCE's challenge, by S256 alone: `plain` would show the verifier to whoever sees the address."""
    challenge, method = one(values, "codeChallenge"), one(values, "codeChallengeMethod")
    if challenge is None and method is None:
        return None
    if method != "S256":
        raise BadInput("codeChallengeMethod must be S256")
    if challenge is None or not re.fullmatch(r"[A-Za-z0-9_-]{43}", challenge):
        raise BadInput("codeChallenge must be the SHA-256 of the verifier in base64url, without padding")
    return challenge


def way_back(wanted: Authorization, **outcome: str) -> str:
    """`redirectUri` with `connectionId`, the outcome and `state` appended to whatever query it has."""
    added = {"connectionId": str(wanted.connection_id), **outcome}
    if wanted.state is not None:
        added["state"] = wanted.state
    parts = urlsplit(wanted.redirect_uri)
    query = "&".join(filter(None, [parts.query, urlencode(added)]))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, parts.fragment))


def origin_of(url: str) -> str:
    """`https://host[:port]`."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True)
class Client:
    """Who calls the token endpoint, as they say."""

    client_id: str
    secret: str = field(repr=False)
    by_basic: bool


def read_client(authorization: Sequence[str], form: Mapping[str, str]) -> Client:
    """The client of the `Authorization: Basic` header, else of the body.

    Raises:
        OAuthError: `invalid_request` for two ways at once, `invalid_client` for none.
    """
    if not authorization:
        return Client(one(form, "clientId") or "", one(form, "clientSecret") or "", by_basic=False)
    if len(authorization) > 1 or one(form, "clientSecret") is not None:
        raise OAuthError("invalid_request", "Send the client's secret once: by HTTP Basic or in the body.")
    client = _read_basic(authorization[0])
    if one(form, "clientId") not in (None, client.client_id):
        raise OAuthError("invalid_request", "clientId in the body is another than the one by HTTP Basic.")
    return client


def _read_basic(header: str) -> Client:
    scheme, _, encoded = header.strip().partition(" ")
    try:
        clear = b64decode(encoded.strip(), validate=True).decode() if scheme.lower() == "basic" else ""
    except (binascii.Error, ValueError):
        clear = ""
    client_id, _, secret = clear.partition(":")
    return Client(unquote_plus(client_id), unquote_plus(secret), by_basic=True)


@dataclass(frozen=True)
class CodeGrant:
    """A code to be exchanged; the guide's exchange names no `redirectUri`."""

    code: str = field(repr=False)
    redirect_uri: str | None
    verifier: str | None = field(default=None, repr=False)

    @property
    def code_hash(self) -> str:
        """By what the store knows the code, if it was this client that asked for it."""
        return hash_of(self.code, None if self.verifier is None else challenge_of(self.verifier))


def challenge_of(verifier: str) -> str:
    """PKCE's S256."""
    return urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def hash_of(code: str, challenge: str | None) -> str:
    """What the store knows of a code.

    The challenge is part of it: without the verifier the code is not found, and with a verifier for which there was no
    challenge it is not found either. No challenge holds a colon, so that no code can play both.
    """
    return hashlib.sha256(f"{challenge or ''}:{code}".encode()).hexdigest()


@dataclass(frozen=True)
class RefreshGrant:
    """A refresh token to be exchanged."""

    refresh_token: str = field(repr=False)


def read_grant(form: Mapping[str, str]) -> CodeGrant | RefreshGrant:
    """What the client wants to exchange.

    Raises:
        OAuthError: `invalid_request` or `unsupported_grant_type`.
    """
    grant_type = one(form, "grantType")
    if grant_type == "authorization_code":
        return CodeGrant(_required(form, "code"), one(form, "redirectUri"), one(form, "codeVerifier"))
    if grant_type == "refresh_token":
        return RefreshGrant(_required(form, "refreshToken"))
    if not grant_type:
        raise OAuthError("invalid_request", "grantType is missing.")
    raise OAuthError("unsupported_grant_type", "grantType must be authorization_code or refresh_token.")


def _required(form: Mapping[str, str], name: str) -> str:
    value = one(form, name)
    if not value:
        raise OAuthError("invalid_request", f"{name} is missing.")
    return value


class Verdict(Enum):
    """What a presented refresh token is worth."""

    CURRENT = "the newest: hand out its successor"
    REPEATED = "its successor has not been used: hand that out again, the first answer may be lost"
    RETIRED = "a successor was used: refuse"
    STOLEN = "a successor was used long ago: refuse, and revoke the family"


def judge(presented: int, current: int, since_rotation: timedelta, since_previous: timedelta) -> Verdict:
    """The worth of generation `presented` when `current` is the newest and came `since_rotation` ago, the one before
    it `since_previous` ago."""
    if presented == current:
        return Verdict.CURRENT
    if presented == current - 1:
        return Verdict.REPEATED
    # A generation that we have not issued yet can only come from a store that was set back: not a theft.
    # The latest rotation retired `current - 2` alone; what is older was retired by the previous one at the latest.
    since_retired = since_rotation if presented == current - 2 else since_previous
    late = presented < current and since_retired > REUSE_GRACE
    return Verdict.STOLEN if late else Verdict.RETIRED


def expires_text(expires_at: int) -> str:
    """`expires` as the guide prints it: UTC without an offset."""
    return datetime.fromtimestamp(expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%S")
