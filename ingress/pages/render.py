"""Pages out: templates, security headers, the style sheet, and errors as pages."""

from __future__ import annotations

import functools
import hashlib
import re
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import aiohttp_jinja2
import aiohttp_session
from aiohttp import hdrs, web
from jinja2 import FileSystemLoader, StrictUndefined

from common.errors import IdentityUnavailable, Unavailable
from common.settings import KeySettings, SiteSettings
from ingress.pages.session import SessionCookie
from ingress.parameters import BadInput
from ingress.problems import retry_after

_HERE = Path(__file__).parent
_STYLE = (_HERE / "style.css").read_bytes()
STYLE_PATH = "/static/style.css"
STYLE_URL = f"{STYLE_PATH}?v={hashlib.sha256(_STYLE).hexdigest()[:12]}"

S = TypeVar("S")
PageMethod = Callable[[S, web.Request], Awaitable[web.StreamResponse]]


def setup_pages(app: web.Application, site: SiteSettings, keys: KeySettings) -> None:
    """Give an application sessions, templates and the style sheet.

    The cookie is `Secure` when `SITE_URI` is https.
    """
    # aiohttp-session 2.12 keeps its session under a string; nobody who runs the gateway can do anything about it.
    warnings.filterwarnings("ignore", message="It is recommended to use web.RequestKey", category=UserWarning)
    secure = site.site_uri.startswith("https:")
    aiohttp_session.setup(app, SessionCookie(keys.clear(), secure=secure))
    aiohttp_jinja2.setup(
        app,
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    app.router.add_get(STYLE_PATH, _style)


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
    response: web.Response = aiohttp_jinja2.render_template(
        template, request, {"style_url": STYLE_URL, **context}, status=status
    )
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
    title = HTTPStatus(status).phrase
    return render(request, "error.html", {"title": title, "message": message}, status=status, headers=headers)


def security_headers(form_origins: Sequence[str] = ()) -> dict[str, str]:
    """What every page carries: no script, no frame, no cache, no referrer."""
    policy = "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action " + " ".join(
        ["'self'", *form_origins]
    )
    return {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        hdrs.CACHE_CONTROL: "no-store",
    }


def page(method: PageMethod[S]) -> PageMethod[S]:
    """Marks a handler's method as a page: what it raises becomes a page as well. Redirects pass."""

    @functools.wraps(method)
    async def answer(self: S, request: web.Request) -> web.StreamResponse:
        try:
            return await method(self, request)
        except BadInput as error:
            return error_page(request, 400, _sentence(error.detail))
        except IdentityUnavailable as error:
            message = "The sign-in service does not answer. Please try again in a few seconds."
            return error_page(request, 503, message, retry_after(error))
        except Unavailable as error:
            message = "We cannot do this right now. Please try again in a few seconds."
            return error_page(request, 503, message, retry_after(error))
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return error_page(request, error.status, "This request cannot be answered.")

    return answer


def _sentence(detail: str) -> str:
    """A detail as a sentence; a parameter's name that it begins with is spelled as it is (`clientId`)."""
    first = detail.partition(" ")[0]
    return f"{detail[:1].upper() if first.islower() else detail[:1]}{detail[1:]}."


async def _style(request: web.Request) -> web.Response:
    return web.Response(
        body=_STYLE,
        content_type="text/css",
        charset="utf-8",
        headers={hdrs.CACHE_CONTROL: "public, max-age=86400", "X-Content-Type-Options": "nosniff"},
    )
