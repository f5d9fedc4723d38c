"""Settings: every fault of every section by name, and values that are right and still unwise."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from common.errors import SettingsError
from common.settings import AdminSettings, SiteSettings, SyncarooSettings, is_this_machine
from common.urls import AllowedHosts
from ops.doctor.around import Around
from ops.doctor.finding import Finding, failed, ok, warning

SHORTEST_TOKEN = 16


async def check(around: Around) -> Finding:
    """All that the role's processes read, and `gateway setup`."""
    faults = [*around.faults, *_composed(around)]
    if faults:
        names = ", ".join(dict.fromkeys(fault.partition(":")[0] for fault in faults))
        return failed(
            grouped(faults),
            f"correct {names} in the environment, .env or the file of a secret (docs/settings.md tells what they mean)",
        )
    unwise = [*_short_tokens(around), *_unreachable(around)]
    if unwise:
        return warning("; ".join(seen for seen, _ in unwise), "; ".join(advice for _, advice in unwise))
    return ok(f"{len(around.sections)} sections are right")


def grouped(faults: Sequence[str]) -> str:
    """`NAME: what is wrong`, those with the same fault as `NAME, NAME: …`. Pure."""
    names: dict[str, list[str]] = {}
    for name, _, text in (fault.partition(": ") for fault in faults):
        names.setdefault(text, []).append(name)
    return "; ".join(f"{', '.join(dict.fromkeys(who))}: {text}" for text, who in names.items())


def _composed(around: Around) -> list[str]:
    """What processes refuse only when they put themselves together."""
    if not around.has(SyncarooSettings):
        return []
    settings = around.of(SyncarooSettings)
    try:
        AllowedHosts(settings.syncaroo_api_hosts, settings.syncaroo_allow_http)
    except SettingsError as error:
        return list(error.faults)
    return []


def _short_tokens(around: Around) -> list[tuple[str, str]]:
    if not around.has(AdminSettings) or not too_short(around.of(AdminSettings).tokens()):
        return []
    return [
        (
            f"ADMIN_TOKEN: a token has fewer than {SHORTEST_TOKEN} characters",
            'set ADMIN_TOKEN to `python -c "import secrets; print(secrets.token_urlsafe(32))"`',
        )
    ]


def too_short(tokens: Sequence[str]) -> bool:
    """Whether one of them could be guessed."""
    return any(len(token) < SHORTEST_TOKEN for token in tokens)


def _unreachable(around: Around) -> list[tuple[str, str]]:
    """With a stand-in for Syncaroo everything is on this machine; else Syncaroo has to reach us."""
    if (
        not around.has(SiteSettings)
        or not around.has(SyncarooSettings)
        or around.of(SyncarooSettings).syncaroo_allow_http
    ):
        return []
    trouble = site_trouble(around.of(SiteSettings).site_uri)
    return (
        [(f"SITE_URI: {trouble}", "set SITE_URI to the https address of the proxy in front of us")] if trouble else []
    )


def site_trouble(site_uri: str) -> str:
    """Why Syncaroo and users cannot use that address; empty: they can."""
    parts = urlsplit(site_uri)
    if is_this_machine(parts.hostname or ""):
        return "is this machine only, where Syncaroo cannot reach us"
    return "" if parts.scheme == "https" else "is not https, so tokens and passwords go unencrypted"
