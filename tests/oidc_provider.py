"""An identity provider in this process that refuses what a real one would refuse, and lies when it is told to."""

from __future__ import annotations

import hashlib
import json
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID = "gateway at the provider"
CLIENT_SECRET = "secret:at%the+provider"


def signing_key(kid: str | None) -> RSAKey:
    return RSAKey.generate_key(2048, {} if kid is None else {"kid": kid}, auto_kid=kid is not None)


@dataclass
class FakeProvider:
    """Everybody is `subject`. `metadata`, `claims` and `answer` are laid over what it would say; `...` leaves out.

    `broken` is a status that everything answers instead.
    """

    redirect_uri: str
    subject: str = "user-7"
    metadata: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    key: RSAKey = field(default_factory=lambda: signing_key("first"))
    published: list[RSAKey] = field(default_factory=list)
    also_published: list[Any] = field(default_factory=list)
    """What stands before them in the set."""
    unsigned: bool = False
    broken: int | None = None
    asked: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    issuer: str = ""

    def __post_init__(self) -> None:
        self.published = self.published or [self.key]

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._moods])
        app.router.add_get("/.well-known/openid-configuration", self._describe)
        app.router.add_get("/jwks", self._keys)
        app.router.add_post("/token", self._token)
        return app

    def come_back(self, location: str, **changes: str) -> str:
        """What the browser is sent back with, once the person at `location` has logged in."""
        parts = urlsplit(location)
        query = dict(parse_qsl(parts.query))
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{self.issuer}/authorize"
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT_ID
        assert query["redirect_uri"] == self.redirect_uri
        assert query["scope"] == "openid"
        assert query["code_challenge_method"] == "S256"
        assert len(query["nonce"]) >= 32
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        back = {"code": code, "state": query["state"], "iss": self.issuer} | changes
        return f"{urlsplit(self.redirect_uri).path}?{urlencode(back)}"

    @web.middleware
    async def _moods(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path)
        if self.broken is not None:
            return web.Response(status=self.broken, text="<html>" if self.broken >= 500 else "{}")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _describe(self, request: web.Request) -> web.Response:
        said = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "id_token_signing_alg_values_supported": ["none", "HS256", "RS256"],
        }
        return web.json_response(_laid_over(said, self.metadata))

    async def _keys(self, request: web.Request) -> web.Response:
        keys = [key.as_dict(private=False) for key in self.published]
        return web.json_response({"keys": [*self.also_published, *keys]})

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        if not self._is_client(request, form):
            return web.json_response({"error": "invalid_client"}, status=401)
        asked = self.codes.pop(form["code"], None)
        if asked is None or form["redirect_uri"] != asked["redirect_uri"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        if urlsafe_b64encode(digest).decode().rstrip("=") != asked["code_challenge"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        said = {"access_token": "not used", "token_type": "Bearer", "id_token": self._id_token(asked["nonce"])}
        return web.json_response(_laid_over(said, self.answer))

    def _is_client(self, request: web.Request, form: dict[str, str]) -> bool:
        if "client_secret_post" in self.metadata.get("token_endpoint_auth_methods_supported", []):
            return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
        given = b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        return dict(parse_qsl(f"pair={given}")) == {"pair": f"{CLIENT_ID}:{CLIENT_SECRET}"}

    def _id_token(self, nonce: str) -> str:
        now = int(time.time())
        said = {"iss": self.issuer, "sub": self.subject, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": nonce}
        claims = _laid_over(said, self.claims)
        if self.unsigned:
            parts = [{"alg": "none"}, claims]
            return ".".join([*(_encoded(json.dumps(part).encode()) for part in parts), ""])
        header = {"alg": "RS256"} | ({"kid": self.key.kid} if self.key.kid else {})
        return jwt.encode(header, claims, self.key)


def _laid_over(said: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (said | changes).items() if value is not ...}


def _encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


@asynccontextmanager
async def provider(redirect_uri: str) -> AsyncIterator[FakeProvider]:
    """On a port of its own."""
    fake = FakeProvider(redirect_uri)
    async with TestServer(fake.app()) as server:
        fake.issuer = str(server.make_url("")).rstrip("/")
        yield fake
