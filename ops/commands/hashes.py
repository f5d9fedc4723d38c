"""`gateway hash probe`: which recipe explains the `hash` of real webhooks. Syncaroo does not publish it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.errors import BadJson, GatewayError
from common.settings import PlatformSettings, WebhookSettings, load
from ingress.webhook.hashes import keys_of
from ingress.webhook.signature import matching
from ops.commands.admin_options import Url, with_admin
from ops.terminal import AsJson, out, print_json

group = typer.Typer(no_args_is_help=True, help="Find out how Syncaroo makes the hash of its webhooks.")

Files = Annotated[
    list[Path] | None,
    typer.Argument(help="Files that each hold the body of one webhook, byte for byte.", exists=True, dir_okay=False),
]


@group.callback()
def callback() -> None:
    """Find out how Syncaroo makes the hash of its webhooks."""


@group.command(epilog="Example: [bold]gateway hash probe webhook.json[/bold]")
def probe(files: Files = None, as_json: AsJson = False, url: Url = None) -> None:
    """Try every recipe with every key on real webhooks, and name those that match.

    Without files: on the last webhooks whose hash did not match, as the ingress remembers them. Put the recipe that
    matches all of them into WEBHOOK_HASH_RECIPE. Ends with 1 when none does.
    """
    platform, webhook = load(PlatformSettings, WebhookSettings)
    keys = keys_of(platform, webhook)
    found = {name: _matching(name, body, keys) for name, body in _bodies(files, url).items()}
    if not found:
        raise GatewayError("Nothing to probe: the ingress remembers no webhook whose hash did not match.")
    if as_json:
        print_json(found)
    else:
        for name, recipes in found.items():
            out.print(f"{name}: {', '.join(recipes) or 'none matches'}", markup=False)
    if not all(found.values()):
        raise typer.Exit(1)


def _bodies(files: list[Path] | None, url: str | None) -> dict[str, bytes]:
    if files:
        return {str(path): path.read_bytes() for path in files}
    kept = with_admin(url, lambda admin: admin.unmatched_webhooks())
    return {f"webhook {number}": body for number, body in enumerate(kept, start=1)}


def _matching(name: str, body: bytes, keys: list[str]) -> list[str]:
    try:
        return matching(body, keys)
    except BadJson as error:
        raise GatewayError(f"{name}: not the body of a webhook ({error.detail})") from error


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    app.add_typer(group, name="hash")
