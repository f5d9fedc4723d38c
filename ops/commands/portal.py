"""`gateway portal`: what Syncaroo's developer portal asks for (guide, "Before getting started")."""

from __future__ import annotations

from typing import Annotated

import typer

from common.settings import PlatformSettings, SiteSettings, load
from ops.doctor.settings import site_trouble
from ops.terminal import AsJson, err, print_json

EPILOG = "Example: [bold]gateway portal --show-secret[/bold]"
MASK = "… (gateway portal --show-secret)"


def portal_values(site: SiteSettings, platform: PlatformSettings, *, show_secret: bool) -> list[dict[str, str]]:
    """The guide's two blocks, in its words."""
    api = f"{site.site_uri}{site.prefix}"
    return [
        {
            "siteUri": site.site_uri,
            "apiUri": f"{api}/",
            "authUri": f"{api}/oauth/authorize",
            "webhookPath": "/update/",
            "checkConnectionPath": "/check_connection/",
        },
        {
            "yourClientId": platform.platform_client_id,
            "yourClientSecret": platform.secrets()[0] if show_secret else MASK,
            "authTokenUri": f"{api}/oauth/token",
        },
    ]


def portal(
    show_secret: Annotated[bool, typer.Option("--show-secret", help="Print the client secret in clear.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the values to give to Syncaroo, from SITE_URI, API_PATH and PLATFORM_CLIENT_ID/_SECRET."""
    site, platform = load(SiteSettings, PlatformSettings)
    blocks = portal_values(site, platform, show_secret=show_secret)
    if trouble := site_trouble(site.site_uri):
        err.print(f"SITE_URI: {trouble}; set it to our https address before you give this to Syncaroo", style="yellow")
    if as_json:
        print_json({name: value for block in blocks for name, value in block.items()})
        return
    for block in blocks:
        print_json(block)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=EPILOG)(portal)
