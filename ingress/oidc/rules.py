"""What we ask an identity provider, and what its answers must be for us to believe them. Pure.

OpenID Connect Core and Discovery, with PKCE (RFC 7636). Authlib gives the parameters and judges the claims, joserfc the
signatures; what is allowed of either is decided here.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from authlib.oidc.discovery import OpenIDProviderMetadata
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet
from joserfc.jws import JWSRegistry

from common.errors import Permanent
from ingress.parameters import BadInput, check_text
from schemas.messages import Json

CALLBACK = "/login/callback"
ALGORITHMS = frozenset(f"{family}{size}" for family in ("RS", "PS", "ES") for size in (256, 384, 512))
"""Signatures by the provider's own key: not `none`, and not those by the client's secret, which we know as well."""
LEEWAY_SECONDS = 60
MAX_SUBJECT = 255
MAX_CODE = 2048
MAX_SHOWN = 200


class BadProvider(Permanent):
    """The provider describes itself in a way that we cannot use, or refuses us as a client."""

    def __init__(self, detail: str) -> None:
        super().__init__("identity_provider", detail)


class UnknownKey(Exception):
    """The token is not signed by a key of this set: its key may be newer than the set."""


class SignInRefused(Permanent):
    """The provider does not, or not credibly, vouch for this person; `detail` says why and holds no secret."""

    def __init__(self, detail: str) -> None:
        super().__init__("sign_in_refused", detail)


@dataclass(frozen=True)
class Client:
    """Who we are to the provider."""

    issuer: str
    client_id: str
    secret: str = field(repr=False)
    redirect_uri: str


@dataclass(frozen=True)
class Provider:
    """Where the provider is asked, as it says itself."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    algorithms: tuple[str, ...]
    secret_in_body: bool


@dataclass(frozen=True)
class Attempt:
    """One person's way to the provider and back: what only their session knows, and where they were going."""

    verifier: str = field(repr=False)
    nonce: str = field(repr=False)
    back: str


@dataclass(frozen=True)
class CodeCame:
    """The provider knows the person."""

    code: str = field(repr=False)
    issuer: str | None


@dataclass(frozen=True)
class Declined:
    """The provider sends the person back without; `error` is its word, to be shown escaped."""

    error: str


def new_attempt(back: str) -> Attempt:
    """Fresh secrets; a verifier of 43 characters, as RFC 7636 wants it."""
    return Attempt(secrets.token_urlsafe(32), secrets.token_urlsafe(24), back)


def discovery_url(issuer: str) -> str:
    """Where the provider describes itself."""
    return f"{issuer.rstrip('/')}/.well-known/openid-configuration"


def read_provider(metadata: Json, issuer: str) -> Provider:
    """What the provider says of itself.

    Raises:
        BadProvider: it is another one than `issuer`, or there is something that we need and it lacks or has over http.
    """
    if not isinstance(metadata, dict):
        raise BadProvider("its description is not an object")
    if metadata.get("issuer") != issuer:
        raise BadProvider("its description names another issuer than OIDC_ISSUER")
    described = OpenIDProviderMetadata(metadata)
    try:  # each https, or http on this machine
        described.validate_authorization_endpoint()
        described.validate_token_endpoint()
        described.validate_jwks_uri()
    except (ValueError, TypeError, AttributeError):
        raise BadProvider("an address in its description is missing or not https") from None
    return _provider(metadata)


def _provider(metadata: dict[str, Any]) -> Provider:
    offered = _words(metadata.get("id_token_signing_alg_values_supported"), "RS256")
    algorithms = tuple(name for name in offered if name in ALGORITHMS)
    if not algorithms:
        raise BadProvider("it signs with no algorithm that we take (RS, PS or ES with 256, 384, 512)")
    methods = _words(metadata.get("token_endpoint_auth_methods_supported"), "client_secret_basic")
    if not {"client_secret_basic", "client_secret_post"} & set(methods):
        raise BadProvider("it takes no client's secret, by Basic or in the body")
    return Provider(
        authorization_endpoint=metadata["authorization_endpoint"],
        token_endpoint=metadata["token_endpoint"],
        jwks_uri=metadata["jwks_uri"],
        algorithms=algorithms,
        secret_in_body="client_secret_basic" not in methods,
    )


def _words(value: Any, otherwise: str) -> list[str]:
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else [otherwise]


def authorization_url(provider: Provider, client: Client, state: str, attempt: Attempt) -> str:
    """Where the person goes to say who they are."""
    url: str = prepare_grant_uri(
        provider.authorization_endpoint,
        client.client_id,
        "code",
        client.redirect_uri,
        "openid",
        state,
        nonce=attempt.nonce,
        code_challenge=create_s256_code_challenge(attempt.verifier),
        code_challenge_method="S256",
    )
    return url


def read_callback(values: Mapping[str, str]) -> CodeCame | Declined:
    """What the provider sent the person back with.

    Raises:
        BadInput: neither a code nor an error.
    """
    if error := values.get("error"):
        parts = (error, values.get("error_description", ""))
        return Declined(": ".join(part[:MAX_SHOWN] for part in parts if part))
    code = values.get("code", "")
    if not 0 < len(code) <= MAX_CODE:
        raise BadInput("the sign-in's code is missing or too long")
    return CodeCame(code, values.get("iss"))


def token_form(provider: Provider, client: Client, code: str, attempt: Attempt) -> dict[str, str]:
    """The form that makes a code a token."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": client.redirect_uri,
        "code_verifier": attempt.verifier,
    }
    if provider.secret_in_body:
        form |= {"client_id": client.client_id, "client_secret": client.secret}
    return form


def token_headers(provider: Provider, client: Client) -> dict[str, str]:
    """Our secret by HTTP Basic, escaped as RFC 6749 §2.3.1 asks; nothing when it goes in the body."""
    if provider.secret_in_body:
        return {}
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.secret)}"
    return {"Authorization": "Basic " + b64encode(pair.encode()).decode()}


def read_tokens(status: int, body: Json) -> dict[str, Any]:
    """The token endpoint's answer, which holds an `id_token`.

    Raises:
        SignInRefused: the code is worth nothing (any more).
        BadProvider: we are refused as a client, or the answer is of no use.
    """
    values = body if isinstance(body, dict) else {}
    if status == 400 and values.get("error") == "invalid_grant":
        raise SignInRefused("the code was used, is too old, or belongs to another sign-in")
    if values.get("error") == "invalid_client":
        raise BadProvider(
            f"its token endpoint answered {status} invalid_client: see OIDC_CLIENT_ID, OIDC_CLIENT_SECRET"
        )
    if status != 200:
        raise BadProvider(f"its token endpoint answered {status} {str(values.get('error', ''))[:40]}".rstrip())
    if not isinstance(values.get("id_token"), str):
        raise BadProvider("its token endpoint gave no id_token")
    return values


def read_keys(body: Json) -> KeySet:
    """The provider's keys, without those that we cannot use: RFC 7517 §5 has us pass them over.

    Raises:
        BadProvider: there is none that can be read.
    """
    listed = body.get("keys") if isinstance(body, dict) else None
    keys = list(_usable(listed)) if isinstance(listed, list) else []
    if not keys:
        raise BadProvider("its keys cannot be read")
    return KeySet(keys)


def _usable(listed: list[Any]) -> Iterator[Key]:
    for one in listed:
        with suppress(JoseError, ValueError, TypeError, KeyError):
            yield JWKRegistry.import_key(one)


def subject_of(
    tokens: Mapping[str, Any], keys: KeySet, provider: Provider, client: Client, attempt: Attempt, now: int
) -> str:
    """Whom the id_token is about: `sub`, once its signature, issuer, audience, times and nonce are right.

    Raises:
        UnknownKey: it is not signed by a key of this set.
        SignInRefused: something in it is wrong.
    """
    registry = JWSRegistry(algorithms=list(provider.algorithms), strict_check_header=False)
    try:
        token = jwt.decode(tokens["id_token"], keys, registry=registry)
        claims = CodeIDToken(token.claims, token.header, _options(client), _given(tokens, client, attempt))
        claims.validate(now=now, leeway=LEEWAY_SECONDS)
    except (InvalidKeyIdError, BadSignatureError):
        raise UnknownKey from None
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise SignInRefused(f"its id_token is not valid: {type(error).__name__} {_claim(error)}".rstrip()) from None
    return _subject(str(claims["sub"]))


def _options(client: Client) -> dict[str, Any]:
    return {
        "iss": {"essential": True, "value": client.issuer},
        "aud": {"essential": True, "value": client.client_id},
        "sub": {"essential": True},
    }


def _given(tokens: Mapping[str, Any], client: Client, attempt: Attempt) -> dict[str, Any]:
    return {"nonce": attempt.nonce, "client_id": client.client_id, "access_token": tokens.get("access_token")}


def _claim(error: Exception) -> str:
    """The claim's name, never its value."""
    return str(getattr(error, "claim", ""))


def _subject(text: str) -> str:
    try:
        check_text(text, "sub")
    except BadInput:
        raise SignInRefused("its id_token's sub holds characters that are not allowed") from None
    if len(text) > MAX_SUBJECT:
        raise SignInRefused("its id_token's sub is too long")
    return text
