"""Pages out: templates, security headers, and errors as pages."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp_jinja2
import aiohttp_session
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from jinja2 import FileSystemLoader, StrictUndefined
from yarl import URL

from common.errors import IdentityUnavailable, IdentityUnusable, Unavailable
from common.settings import KeySettings, SiteSettings
from ingress.pages.session import SchemesCookie, SessionCookie, is_from_elsewhere
from ingress.pages.static import STATIC_PATH, serve, static_url
from ingress.parameters import BadInput
from ingress.problems import retry_after

_ORIGIN = web.AppKey("_ORIGIN", str)
"""Of `SITE_URI`, as browsers spell it: the host in small letters, no port where it is the usual one. Empty: whichever
a request came to."""
_SESSIONS = web.AppKey("_SESSIONS", Middleware)
_OPS_COOKIE = "gateway-ops"
_TEMPLATES = Path(__file__).parent / "templates"

_TITLES = {400: "This does not work", 403: "Nothing was done", 503: "Not right now"}

S = TypeVar("S")
PageMethod = Callable[[S, web.Request], Awaitable[web.StreamResponse]]


def setup_pages(app: web.Application, site: SiteSettings, keys: KeySettings, *, is_site: bool = True) -> None:
    """Give an application sessions, templates and what pages are made of besides.

    The cookie is `Secure` when `SITE_URI` is https. `is_site=False`: it is reached at another address, which no setting
    tells; then each request's own scheme counts, and its own host is where forms may come from.
    """
    # aiohttp-session 2.12 keeps its session under a string; nobody who runs the gateway can do anything about it.
    warnings.filterwarnings("ignore", message="It is recommended to use web.RequestKey", category=UserWarning)
    secure = site.site_uri.startswith("https:")
    of_site, elsewhere = SessionCookie(keys.clear(), secure=secure), SchemesCookie(keys.clear(), _OPS_COOKIE)
    app[_SESSIONS] = aiohttp_session.session_middleware(of_site if is_site else elsewhere)
    environment = aiohttp_jinja2.setup(
        app,
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"static": static_url, "site": urlsplit(site.site_uri).netloc}
    environment.filters |= {"moment": _moment, "clock": _clock}
    app[_ORIGIN] = str(URL(site.site_uri).origin()) if is_site else ""
    app.router.add_get(STATIC_PATH, serve)


async def in_session(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The answer of a handler that asks for the session: pages do, and what programs call need not pass by it."""
    return await request.app[_SESSIONS](request, handler)


def render(
    request: web.Request,
    template: str,
    context: Mapping[str, Any],
    *,
    status: int = 200,
    form_origins: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """A page. `form_origins` are the origins (`https://host`) to which a form's answer may redirect."""
    response: web.Response = aiohttp_jinja2.render_template(template, request, dict(context), status=status)
    response.headers.update(security_headers(form_origins))
    response.headers.update(headers or {})
    return response


def redirect(location: str, status: int = 303) -> web.Response:
    """On to another address; 303 after a posted form, so that a reload posts nothing twice."""
    return web.Response(status=status, headers={hdrs.LOCATION: location, **security_headers()})


def here(request: web.Request) -> str:
    """The same address with the same parameters; one slash at its beginning, so that it stays on this site."""
    path = re.sub("/+", "/", request.rel_url.raw_path)
    query = request.rel_url.raw_query_string
    return f"{path}?{query}" if query else path


def error_page(
    request: web.Request, status: int, message: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A page that says what went wrong, in a sentence that never repeats what was sent."""
    title = _TITLES.get(status) or HTTPStatus(status).phrase
    return render(request, "error.html", {"title": title, "message": message}, status=status, headers=headers)


def security_headers(form_origins: Sequence[str] = ()) -> dict[str, str]:
    """What every page carries: nothing but our own files, no frame, no cache, no referrer."""
    ours = "style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'"
    forms = " ".join(["form-action 'self'", *form_origins])
    policy = f"default-src 'none'; {ours}; base-uri 'none'; frame-ancestors 'none'; {forms}"
    return {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        hdrs.CACHE_CONTROL: "no-store",
    }


def page(method: PageMethod[S]) -> PageMethod[S]:
    """Marks a handler's method as a page: what it raises becomes a page as well. Redirects pass, forms only if ours."""

    async def answer(self: S, request: web.Request) -> web.StreamResponse:
        if request.method == hdrs.METH_POST and is_from_elsewhere(request.headers, _origin_of(request)):
            return error_page(request, 403, "This form was sent from another site.")
        try:
            return await method(self, request)
        except BadInput as error:
            return error_page(request, 400, _sentence(error.detail))
        except Unavailable as error:
            return error_page(request, 503, _what_is_away(error), retry_after(error))
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return error_page(request, error.status, "This request cannot be answered.")

    @functools.wraps(method)
    async def answer_in_session(self: S, request: web.Request) -> web.StreamResponse:
        return await in_session(request, functools.partial(answer, self))

    return answer_in_session


def _origin_of(request: web.Request) -> str:
    """Ours; by what the request says of itself where no setting does. A browser lets no page lie about its Origin."""
    return request.app[_ORIGIN] or f"{request.scheme}://{request.host}".lower()


def _what_is_away(error: Unavailable) -> str:
    match error:
        case IdentityUnusable():
            return "Signing in is not set up correctly here; please tell those who run this site."
        case IdentityUnavailable():
            return "The sign-in service does not answer. Please try again in a few seconds."
        case _:
            return "We cannot do this right now. Please try again in a few seconds."


def _sentence(detail: str) -> str:
    """A detail as a sentence; a parameter's name that it begins with is spelled as it is (`clientId`)."""
    first = detail.partition(" ")[0]
    return f"{detail[:1].upper() if first.islower() else detail[:1]}{detail[1:]}."


def _moment(at: datetime) -> str:
    """A time as people read it."""
    return f"{at.astimezone(UTC):%-d %b %Y, %H:%M} UTC"


def _clock(at: datetime) -> str:
    """The same to the second, for who knows that it is UTC."""
    return f"{at.astimezone(UTC):%-d %b %H:%M:%S}"
