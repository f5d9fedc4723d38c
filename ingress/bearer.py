"""The bearer token of a request, and the answers to a missing, wrong or foreign one (RFC 6750)."""

from __future__ import annotations

from aiohttp import hdrs, web

from ingress.problems import problem


def bearer_token(request: web.Request) -> str | None:
    """The token of the one `Authorization: Bearer` header; None without one, with another scheme, or with several."""
    headers = request.headers.getall(hdrs.AUTHORIZATION, [])
    if len(headers) != 1:
        return None
    scheme, _, token = headers[0].strip().partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token and token.isascii() else None


def unauthorized(detail: str) -> web.Response:
    """401, with the challenge that says how to do better."""
    return problem(401, "/problems/invalid-token", "Invalid token", detail, headers={hdrs.WWW_AUTHENTICATE: "Bearer"})


def other_connection() -> web.Response:
    """403: the token is good, for another connection."""
    detail = "The access token belongs to another connection."
    return problem(403, "/problems/other-connection", "Another connection's token", detail)
