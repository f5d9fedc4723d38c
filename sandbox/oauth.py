"""Syncaroo as OAuth provider: `GET /api/authorize` for the platform's admin, `POST /api/token` for its token worker.

Exactly the guide's fields. Codes and refresh tokens work once; a refused request is a violation in
the records, a used token presented again only if the answer that used it up was delivered.
"""

import asyncio
import secrets
import time
from urllib.parse import urlencode

from aiohttp import web

from sandbox import breakage
from sandbox.faults import Fault
from sandbox.records import TokenRecord, fingerprint
from sandbox.rendering import page
from sandbox.state import SANDBOX, Granted, Sandbox, json_answer

AUTHORIZE_FIELDS = frozenset({"clientId", "redirectUri", "responseType", "scope", "state"})
TOKEN_FIELDS = {
    "authorization_code": frozenset({"clientId", "redirectUri", "clientSecret", "code", "grantType"}),
    "refresh_token": frozenset({"clientId", "clientSecret", "refreshToken", "grantType"}),
}


class Refused(Exception):
    """The request is answered with `status` and RFC 6749's `error`; `why` is for the records."""

    def __init__(self, error: str, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.error, self.why, self.status = error, why, status


def routes() -> list[web.RouteDef]:
    return [
        web.get("/api/authorize", authorize),
        web.post("/api/authorize", decide),
        web.post("/api/token", token),
    ]


async def authorize(request: web.Request) -> web.Response:
    """The admin arrives: a page with an Allow button, or straight back under `auto_approve`."""
    sandbox = request.app[SANDBOX]
    try:
        asked = _fields(dict(request.query), list(request.query), AUTHORIZE_FIELDS)
        _check_authorize(sandbox, asked)
    except Refused as refused:
        sandbox.records.violation("authorize", f"/api/authorize: {refused.why}")
        return page("message.html", 400, title="This link does not work", text=refused.why)
    if sandbox.config.auto_approve:
        return _back(sandbox, asked, allowed=True)
    return page("authorize.html", asked=asked, platform=sandbox.config.platform_url)


async def decide(request: web.Request) -> web.Response:
    """The admin pressed Allow or Deny; the hidden fields are those of the link."""
    sandbox = request.app[SANDBOX]
    form = {name: str(value) for name, value in (await request.post()).items()}
    try:
        _check_authorize(sandbox, form)
    except (Refused, KeyError) as refused:
        return page("message.html", 400, title="This form does not work", text=str(refused))
    return _back(sandbox, form, allowed=form.get("decision") == "allow")


def _check_authorize(sandbox: Sandbox, asked: dict[str, str]) -> None:
    if asked["clientId"] != sandbox.config.client_id:
        raise Refused("invalid_client", "clientId is not one of ours")
    if asked["redirectUri"] not in sandbox.config.allowed_confirm_uris:
        raise Refused("invalid_request", f"redirectUri is not registered: {asked['redirectUri']}")
    if asked["responseType"] != "code":
        raise Refused("invalid_request", "responseType must be code")


def _back(sandbox: Sandbox, asked: dict[str, str], *, allowed: bool) -> web.Response:
    """Back to the platform with `code` and `state`, or with `error` and `state`; `state` also when empty (guide)."""
    answer = {"error": "access_denied"}
    if allowed:
        code = sandbox.config.secret_mark + secrets.token_urlsafe(24)
        expires_at = time.time() + sandbox.config.code_seconds
        sandbox.grants.codes[code] = Granted(expires_at=expires_at, redirect_uri=asked["redirectUri"])
        answer = {"code": code}
    mark = "&" if "?" in asked["redirectUri"] else "?"
    location = f"{asked['redirectUri']}{mark}{urlencode(answer | {'state': asked['state']})}"
    return web.Response(status=302, headers={"Location": location, "Cache-Control": "no-store"})


async def token(request: web.Request) -> web.StreamResponse:
    """Both grants, with their record and their faults."""
    sandbox = request.app[SANDBOX]
    record = sandbox.records.token_began()
    try:
        response = await _answer(sandbox, request, record)
    except Refused as refused:
        record.outcome = record.outcome or refused.error
        response = json_answer({"error": refused.error}, refused.status)
    sandbox.records.ended(record, response.status)
    if "token_drop" in record.fault:
        return breakage.reset(request)
    return response


async def _answer(sandbox: Sandbox, request: web.Request, record: TokenRecord) -> web.Response:
    form = await _form(sandbox, request)
    record.grant_type = form["grantType"]
    presented = form.get("code") or form.get("refreshToken") or ""
    record.presented = fingerprint(presented)
    if fault := _strikes(sandbox, record, "token_slow"):
        await asyncio.sleep(fault.seconds)
    if _strikes(sandbox, record, "token_used"):
        raise Refused("invalid_grant", "as ordered")
    broken = _before_use(sandbox, record)
    if broken is not None:
        return broken
    granted = _use(sandbox, form, record)
    return _issue(sandbox, granted, record)


async def _form(sandbox: Sandbox, request: web.Request) -> dict[str, str]:
    """The form, checked against the guide. Raises Refused, and records why."""
    try:
        if request.content_type != "application/x-www-form-urlencoded":
            raise Refused("invalid_request", f"Content-Type is {request.content_type}, not a form's")
        if request.query_string:
            raise Refused("invalid_request", "parameters in the query string")
        posted = await request.post()
        form = {name: str(value) for name, value in posted.items()}
        expected = TOKEN_FIELDS.get(form.get("grantType", ""))
        if expected is None:
            raise Refused("unsupported_grant_type", "grantType is missing or unknown")
        form = _fields(form, list(posted), expected)
        _check_client(sandbox, form)
    except Refused as refused:
        sandbox.records.violation(refused.error, f"/api/token: {refused.why}")
        raise
    return form


def _fields(values: dict[str, str], names: list[str], expected: frozenset[str]) -> dict[str, str]:
    """The values, when their names are exactly those expected, each once. Raises Refused."""
    missing, extra = expected - set(names), set(names) - expected
    if missing or extra or len(names) != len(expected):
        told = f"missing {sorted(missing)}, unknown {sorted(extra)}" if missing or extra else "a field twice"
        raise Refused("invalid_request", f"fields must be exactly {sorted(expected)}: {told}")
    return values


def _check_client(sandbox: Sandbox, form: dict[str, str]) -> None:
    if form["clientId"] != sandbox.config.client_id or form["clientSecret"] != sandbox.config.client_secret:
        raise Refused("invalid_client", "clientId or clientSecret is wrong", 401)


def _use(sandbox: Sandbox, form: dict[str, str], record: TokenRecord) -> Granted:
    """Use up the code or refresh token. Raises Refused: `invalid_grant`."""
    is_code = form["grantType"] == "authorization_code"
    known = sandbox.grants.codes if is_code else sandbox.grants.refresh
    granted = known.get(form["code"] if is_code else form["refreshToken"])
    if granted is None or time.time() > granted.expires_at:
        raise Refused("invalid_grant", "unknown or expired")
    if granted.used:
        record.outcome = "reused" if granted.delivered else "reused_after_drop"
        if granted.delivered:
            sandbox.records.violation("reuse", f"/api/token: a used {form['grantType']} was presented again")
        raise Refused("invalid_grant", "already used")
    if is_code and form["redirectUri"] != granted.redirect_uri:
        sandbox.records.violation("redirect_uri", "/api/token: redirectUri is not that of the authorize link")
        raise Refused("invalid_grant", "redirectUri differs")
    granted.used = True
    return granted


def _issue(sandbox: Sandbox, granted: Granted, record: TokenRecord) -> web.Response:
    """The guide's answer with a new pair, unless a fault swallows or spoils it."""
    access, refresh = (sandbox.config.secret_mark + secrets.token_urlsafe(32) for _ in range(2))
    seconds = sandbox.config.token_seconds
    sandbox.grants.access[access] = Granted(expires_at=time.time() + seconds)
    sandbox.grants.refresh[refresh] = Granted(expires_at=float("inf"))
    record.outcome, record.issued = "issued", fingerprint(refresh)
    body = {"tokenType": "Bearer", "expiresIn": seconds, "accessToken": access, "refreshToken": refresh}
    if fault := _strikes(sandbox, record, "token_lifetime"):
        body["expiresIn"] = fault.value
    spoilt = _after_use(sandbox, record, body)
    granted.delivered = spoilt is None
    return spoilt or json_answer(body)


def _before_use(sandbox: Sandbox, record: TokenRecord) -> web.Response | None:
    """Faults that leave the code or token unused."""
    for kind, outcome in (("token_drop", "dropped"), ("token_status", "failed")):
        if fault := _strikes(sandbox, record, kind, keeps=True):
            record.outcome = outcome
            return breakage.refusal(fault)
    return None


def _after_use(sandbox: Sandbox, record: TokenRecord, body: dict[str, object]) -> web.Response | None:
    if _strikes(sandbox, record, "token_drop", keeps=False):
        record.outcome = "dropped"
        return json_answer(body)
    if fault := _strikes(sandbox, record, "token_status", keeps=False):
        return breakage.refusal(fault)
    if _strikes(sandbox, record, "token_html"):
        return breakage.html()
    if fault := _strikes(sandbox, record, "token_missing"):
        return json_answer({name: value for name, value in body.items() if name != (fault.value or "refreshToken")})
    return None


def _strikes(sandbox: Sandbox, record: TokenRecord, kind: str, *, keeps: bool | None = None) -> Fault | None:
    fault = sandbox.faults.take(kind, keeps=keeps)
    if fault is not None:
        record.fault = f"{record.fault} {kind}".strip()
    return fault
