"""Whose documents they are."""

from __future__ import annotations

from dataclasses import dataclass

from common.settings import SiteSettings, WebhookSettings
from schemas.catalogue import EXAMPLE_SITE

VERSION = "0.1.0"
"""Of the documents: that of the gateway (pyproject.toml; a test compares)."""


@dataclass(frozen=True)
class Place:
    """A deployment: where it is reached, under which prefix, what its events name as their source, and how it accepts a
    webhook."""

    site_uri: str
    prefix: str
    source: str
    webhook_status: int = 200


EXAMPLE = Place(EXAMPLE_SITE, "/api", EXAMPLE_SITE)
"""The one that the documents in the repository speak of."""


def place_of(site: SiteSettings, webhook: WebhookSettings) -> Place:
    """The deployment that these settings describe."""
    return Place(site.site_uri, site.prefix, site.source, webhook.webhook_success_status)
