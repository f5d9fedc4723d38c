"""Syncaroo, our own addresses, and what else is reached over HTTP; and the clocks that answers tell."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import urlsplit

from common.codec import loads
from common.errors import BadJson
from common.settings import (
    ClientSettings,
    EgressSettings,
    InventorySettings,
    OidcSettings,
    PlatformSettings,
    SiteSettings,
    SyncarooSettings,
)
from ingress.connect.rules import authorize_url
from ingress.oidc.rules import discovery_url
from ops.doctor import store
from ops.doctor.around import Around
from ops.doctor.finding import Finding, failed, ok, skipped, warning, worst
from ops.doctor.http import Answered, Unreached, ask

CHECK_EGRESS = "check DNS, firewall and EGRESS_PROXY from this machine"


def _proxy(around: Around) -> str | None:
    if not around.has(EgressSettings) or (proxy := around.of(EgressSettings).egress_proxy) is None:
        return None
    return proxy.get_secret_value()


async def syncaroo(around: Around) -> Finding:
    """Whether Syncaroo's application and each host of its API answer; no token is sent."""
    settings = around.of(SyncarooSettings)
    scheme = "http" if settings.syncaroo_allow_http else "https"
    places = [("SYNCAROO_BASE_URL", settings.syncaroo_base_url)]
    places += [("SYNCAROO_API_HOSTS", f"{scheme}://{host}/") for host in settings.syncaroo_api_hosts]
    return worst([await _answers(name, url, _proxy(around)) for name, url in places])


async def _answers(name: str, url: str, proxy: str | None = None) -> Finding:
    try:
        answer = await ask(url, proxy=proxy)
    except Unreached as error:
        return failed(f"{name}: {url}: {error}", f"{CHECK_EGRESS}, or correct {name}")
    if answer.status >= 500:
        return warning(f"{name}: {url} answers {answer.status}", "it is in trouble; wait, or ask who runs it")
    return ok(f"{url} answers")


async def redirect(around: Around) -> Finding:
    """Whether Syncaroo takes the link that `/connect` leads to."""
    base, client = around.of(SyncarooSettings).syncaroo_base_url, around.of(ClientSettings).syncaroo_client_id
    back = f"{around.of(SiteSettings).site_uri}/confirm"
    try:
        answer = await ask(authorize_url(base, client, back, "doctor"), proxy=_proxy(around))
    except Unreached as error:
        return failed(f"{base}/api/authorize: {error}", CHECK_EGRESS)
    return judge_redirect(answer, back)


def judge_redirect(answer: Answered, back: str) -> Finding:
    """Pure. The guide says nothing of a wrong link: that 4xx means one is inferred."""
    came_back = answer.location.startswith(back) and "error=" in answer.location
    if answer.status in (400, 401, 403, 422) or came_back:
        return failed(
            f"Syncaroo answers {answer.status} to our link (inferred: it does not know our client id, or not {back})",
            f"register {back} in Syncaroo's developer portal, or correct SITE_URI or SYNCAROO_CLIENT_ID",
        )
    if answer.status >= 404:
        return warning(f"Syncaroo answers {answer.status} to our link", "compare SYNCAROO_BASE_URL with the guide")
    return ok(f"Syncaroo takes our link (inferred), back to {back}")


async def site(around: Around) -> Finding:
    """Whether we are reached where we say that we are."""
    settings = around.of(SiteSettings)
    base, prefix = around.site, settings.prefix
    try:
        answer = await ask(f"{base}/healthz")
        finding = judge_health(base, answer)
        if finding.state != "ok":
            return finding
        asked = (("GET", "/check_connection"), ("POST", "/update/"))
        seen = [(f"{prefix}{path}", (await ask(f"{base}{prefix}{path}", method=verb)).status) for verb, path in asked]
        seen.append(("/update", (await ask(f"{base}/update", method="POST")).status))
    except Unreached as error:
        return failed(
            f"SITE_URI: {base}: {error}",
            "is `python -m ingress` running, and the proxy in front of it? Or correct SITE_URI",
        )
    return judge_paths(base, seen)


def judge_health(base: str, answer: Answered) -> Finding:
    """Whether it is our ingress that answers. Pure."""
    if 300 <= answer.status < 400:
        return failed(
            f"SITE_URI: {base} leads on to {answer.location}",
            "name the address that answers itself in SITE_URI (https, no www)",
        )
    if answer.status in (502, 503, 504):
        return failed(
            f"SITE_URI: {base} is a proxy that reaches no ingress ({answer.status})",
            "start `python -m ingress`, or correct the proxy's upstream",
        )
    try:
        told = loads(answer.body)
    except BadJson:
        told = None
    if answer.status != 200 or not isinstance(told, dict) or told.get("status") != "alive":
        return failed(
            f"SITE_URI: at {base} answers somebody else's server ({answer.status})",
            "correct SITE_URI, DNS, or the proxy",
        )
    return ok(f"{base} is our ingress")


def judge_paths(base: str, seen: Iterable[tuple[str, int]]) -> Finding:
    """Without a token each has to answer 401. Pure."""
    wrong = [f"{path} answers {status}" for path, status in seen if status != 401]
    if wrong:
        return failed(
            f"SITE_URI: {base}: {', '.join(wrong)} where it should be 401",
            "have the proxy hand on these paths as they are (API_PATH), with the Authorization header left alone",
        )
    return ok(f"{base} is our ingress, and its API asks for a token")


async def platform(around: Around) -> Finding:
    """Whether users may only be sent back to places that make sense."""
    uris = around.of(PlatformSettings).platform_redirect_uris
    return judge_redirect_uris(
        uris, str(around.of(SiteSettings).site_uri), around.of(SyncarooSettings).syncaroo_allow_http
    )


def judge_redirect_uris(uris: Iterable[str], site_uri: str, allow_http: bool) -> Finding:
    """Pure."""
    wrong: list[str] = []
    for uri in uris:
        parts = urlsplit(uri)
        if (parts.scheme != "https" and not (allow_http and parts.scheme == "http")) or not parts.hostname:
            wrong.append(f"{uri} is not an https URL")
        elif parts.fragment:
            wrong.append(f"{uri} has a fragment")
        elif parts.netloc == urlsplit(site_uri).netloc:
            wrong.append(f"{uri} is our own site, not Syncaroo's")
    if wrong:
        return failed(
            f"PLATFORM_REDIRECT_URIS: {'; '.join(wrong)}",
            "PLATFORM_REDIRECT_URIS takes Syncaroo's own, https://app.syncaroo.com/connection",
        )
    return ok("Syncaroo's own")


async def inventory(around: Around) -> Finding:
    """Whether the platform answers where its listings are asked for."""
    url = around.of(InventorySettings).inventory_url
    if url is None:
        return skipped("INVENTORY_URL is not set")
    parts = urlsplit(url)
    return await _answers("INVENTORY_URL", f"{parts.scheme}://{parts.netloc}/")


async def identity(around: Around) -> Finding:
    """Whether the identity provider describes itself."""
    issuer = around.of(OidcSettings).oidc_issuer
    if issuer is None:
        return skipped("OIDC_ISSUER is not set")
    url = discovery_url(issuer)
    try:
        answer = await ask(url)
        told = loads(answer.body)
    except Unreached as error:
        return failed(f"OIDC_ISSUER: {url}: {error}", "check DNS and firewall, or correct OIDC_ISSUER")
    except BadJson:
        told = None
    if not isinstance(told, dict) or told.get("issuer") != issuer:
        return failed(f"OIDC_ISSUER: {url} does not describe {issuer}", "correct OIDC_ISSUER, to the last slash")
    return ok(f"{issuer} describes itself")


async def clock(around: Around) -> Finding:
    """How far this machine's clock is from the store's, Syncaroo's and our own site's."""
    told: dict[str, float] = {}
    with suppress(Exception):  # that it does not answer is another check's to say
        if (ahead := await store.clock(around)) is not None:
            told["the database"] = ahead
    addresses = {"Syncaroo": around.of(SyncarooSettings).syncaroo_base_url, "our site": f"{around.site}/healthz"}
    for name, url in addresses.items():
        try:
            answer = await ask(url, proxy=_proxy(around) if name == "Syncaroo" else None)
        except Unreached:
            continue
        if answer.ahead is not None:
            told[name] = answer.ahead
    return judge_clock(told)


def judge_clock(ahead: dict[str, float]) -> Finding:
    """Seconds by which others are ahead of this machine. Pure."""
    if not ahead:
        return skipped("nobody told us the time")
    apart = max(abs(seconds) for seconds in ahead.values())
    told = ", ".join(f"{name}'s is {_apart(seconds)}" for name, seconds in ahead.items())
    mend = "set this machine's clock by NTP (`timedatectl`, `chronyc tracking`), or that of who is alone with its time"
    if apart > store.CLOCK_FAILS:
        return failed(told, mend)
    return (
        warning(told, mend)
        if apart > store.CLOCK_WARNS
        else ok(f"no more than {apart:.0f} s apart: {', '.join(ahead)}")
    )


def _apart(seconds: float) -> str:
    return f"{abs(seconds):.0f} s {'ahead' if seconds > 0 else 'behind'}"
