"""The keeping of our access to Syncaroo, in numbers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from workers.token.rules import Look


class TokenMetrics:
    """Of one process, on the registry that its `/metrics` shows; without one they are kept and shown nowhere."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.refreshes = Counter(
            "gateway_token_refreshes",
            "Refreshes by what came of them: renewed, refused (an admin must authorise), unknown (tried again).",
            ["outcome"],
            registry=registry,
        )
        self.refresh_in = Gauge(
            "gateway_token_refresh_in_seconds",
            "Time until the next refresh is due, at the last look; negative: it is late.",
            registry=registry,
        )
        self.expires_in = Gauge(
            "gateway_token_expires_in_seconds",
            "Time until the token expires, at the last look; negative: it has expired.",
            registry=registry,
        )
        self.needs_authorisation = Gauge(
            "gateway_token_needs_authorisation", "1 while an admin must authorise again.", registry=registry
        )

    def show(self, look: Look) -> None:
        """What the row says."""
        self.needs_authorisation.set(look.state == "needs_authorisation")
        nothing = float("nan")
        self.refresh_in.set((look.refresh_at - look.now).total_seconds() if look.refresh_at else nothing)
        self.expires_in.set((look.expires_at - look.now).total_seconds() if look.expires_at else nothing)
