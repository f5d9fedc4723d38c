"""Where the admin API is, for the commands that speak to it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import typer

from common.settings import AdminSettings, ListenSettings, SiteSettings, load
from ops.admin import AdminApi

T = TypeVar("T")

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="ADMIN_URL",
        help="Base of the ingress. By default SITE_URI; with OPS_PORT, that port of its host.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def need_yes(sure: bool, unasked: bool) -> None:
    """Refuse what would have to ask where nobody can answer (exit 2)."""
    if unasked and not sure:
        raise typer.BadParameter("a program cannot be asked: give --yes")


def confirmed(sure: bool, unasked: bool) -> Callable[[str], None]:
    """How to ask whether somebody is sure: not at all with --yes; without it only where somebody can answer.

    Raises:
        typer.BadParameter: nobody can (exit 2).
    """
    need_yes(sure, unasked or not sys.stdin.isatty())

    def ask(question: str) -> None:
        if not sure:
            typer.confirm(question, abort=True)

    return ask


def with_admin(url: str | None, work: Callable[[AdminApi], Awaitable[T]]) -> T:
    """Run `work` with a client of the admin API, as ADMIN_TOKEN's holder.

    Raises:
        SettingsError, AdminRefused.
    """
    site, listen, admin = load(SiteSettings, ListenSettings, AdminSettings)
    return asyncio.run(_run(url or _base(site, listen), admin.tokens()[0], work))


async def _run(base: str, token: str, work: Callable[[AdminApi], Awaitable[T]]) -> T:
    async with AdminApi(base, token) as api:
        return await work(api)


def _base(site: Any, listen: Any) -> str:
    if listen.ops_port is None:
        return str(site.site_uri)
    return f"http://{urlsplit(site.site_uri).hostname}:{listen.ops_port}"
