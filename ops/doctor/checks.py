"""The checks, in the order in which a person reads them."""

from __future__ import annotations

from common.settings import (
    BrokerSettings,
    ClientSettings,
    InventorySettings,
    KeySettings,
    ManagementSettings,
    OidcSettings,
    PlatformSettings,
    SiteSettings,
    StoreSettings,
    SyncarooSettings,
)
from ops.doctor import broker, settings, store, web
from ops.doctor.finding import Check

_BROKER = (BrokerSettings, ManagementSettings)
_KNOWN = ("store", "schema")

CHECKS = (
    Check("settings", settings.check),
    Check("broker", broker.reach, _BROKER),
    Check("rights", broker.rights, _BROKER, ("broker",)),
    Check("topology", broker.topology, _BROKER, ("broker",)),
    Check("policies", broker.policies, _BROKER, ("broker",)),
    Check("alarms", broker.alarms, _BROKER, ("broker",)),
    Check("store", store.reach, (StoreSettings,)),
    Check("schema", store.schema, (StoreSettings,), ("store",)),
    Check("environment", store.environment, (StoreSettings, SiteSettings, SyncarooSettings), _KNOWN),
    Check("disk", store.disk, (StoreSettings,), _KNOWN),
    Check("keys", store.keys, (StoreSettings, KeySettings), _KNOWN),
    Check("clock", web.clock, (StoreSettings, SiteSettings, SyncarooSettings)),
    Check("syncaroo", web.syncaroo, (SyncarooSettings,)),
    Check("redirect", web.redirect, (SiteSettings, SyncarooSettings, ClientSettings), ("syncaroo",)),
    Check("platform", web.platform, (SiteSettings, SyncarooSettings, PlatformSettings)),
    Check("site", web.site, (SiteSettings,)),
    Check("inventory", web.inventory, (InventorySettings,)),
    Check("identity", web.identity, (OidcSettings,)),
    Check("grant", store.grant, (StoreSettings, SiteSettings), _KNOWN),
    Check("relay", store.relay, (StoreSettings,), _KNOWN),
    Check("parked", store.parked, (StoreSettings,), _KNOWN),
    Check("held", store.held, (StoreSettings,), _KNOWN),
)
NAMES = tuple(check.name for check in CHECKS)
