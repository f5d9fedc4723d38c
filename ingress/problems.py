"""Errors of the API as `application/problem+json` (RFC 9457): a stable `type`, and a `detail` that a person can act on.

Pages answer with pages (ingress/pages); the token endpoint answers as RFC 6749 says (ingress/oauth).
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from common.codec import dumps
from common.errors import BadJson, BrokerUnavailable, StoreUnavailable, Unavailable
from common.logs import get_logger
from ingress.parameters import BadInput

RETRY_AFTER_SECONDS = 5

log = get_logger(__name__)


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why it was refused (RFC 9457): `type` is stable, `detail` says what to do."""

    type: str
    title: str
    status: int
    detail: str


def problem(status: int, type_: str, title: str, detail: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """A problem document. `type_` is a URI reference such as `/problems/invalid-token` and never changes."""
    body = dumps(Problem(type=type_, title=title, status=status, detail=detail))
    return web.Response(
        status=status,
        body=body,
        headers={hdrs.CACHE_CONTROL: "no-store", **(headers or {})},
        content_type="application/problem+json",
    )


def problem_of(error: Exception) -> web.Response | None:
    """The answer to an error that has one; None: it is a bug."""
    if isinstance(error, BadJson):
        return problem(400, "/problems/invalid-json", "Invalid JSON", f"The body is not strict JSON: {error.detail}.")
    if isinstance(error, BadInput):
        return problem(400, "/problems/invalid-request", "Invalid request", error.detail + ".")
    if isinstance(error, Unavailable):
        return unavailable(error)
    if isinstance(error, web.HTTPException) and error.status >= 400:
        return _of_http(error)
    return None


def unavailable(error: Unavailable) -> web.Response:
    """503: what we stand on is away."""
    what = {StoreUnavailable: "store", BrokerUnavailable: "broker"}
    name = next((word for kind, word in what.items() if isinstance(error, kind)), "service")
    return problem(
        503,
        f"/problems/{name}-unavailable",
        "Temporarily unavailable",
        f"The {name} does not answer. Try again in a few seconds.",
        headers=retry_after(error),
    )


def retry_after(error: Unavailable) -> dict[str, str]:
    """The header that says when to come back."""
    return {hdrs.RETRY_AFTER: str(max(1, round(error.retry_after or RETRY_AFTER_SECONDS)))}


@web.middleware
async def problem_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns errors into problem documents; redirects pass. The outermost of the middlewares that answer."""
    try:
        return await handler(request)
    except Exception as error:
        answer = problem_of(error)
        if answer is not None:
            return answer
        if isinstance(error, web.HTTPException):
            raise
        log.exception("request.failed", method=request.method, path=request.path)
        return problem(500, "/problems/internal", "Internal error", "This is a bug of the gateway. It has been logged.")


def phrase_of(status: int) -> str:
    """A status in words, which never change."""
    return _PHRASES.get(status) or HTTPStatus(status).phrase


def _of_http(error: web.HTTPException) -> web.Response:
    phrase = phrase_of(error.status)
    kept = {str(name): error.headers[name] for name in (hdrs.ALLOW, hdrs.RETRY_AFTER) if name in error.headers}
    name = phrase.lower().replace(" ", "-")
    return problem(error.status, f"/problems/{name}", phrase, _DETAILS.get(error.status, f"{phrase}."), headers=kept)


_PHRASES = {413: "Content Too Large"}  # Python 3.13 has renamed it; a type never changes

_DETAILS = {
    404: "There is nothing at this address.",
    405: "This address does not take that method.",
    413: "The body is too large: at most 256 KiB.",
    415: "The body's type is not one that this address takes.",
}
