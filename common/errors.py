"""One tree of errors, split by what the caller does next.

    GatewayError
    ├── Retryable(retry_after)           try again later
    │   ├── Unavailable                  what we stand on is away; waiting mends it, nothing is wrong with the work
    │   │   ├── BrokerUnavailable
    │   │   ├── StoreUnavailable
    │   │   ├── IdentityUnavailable      the platform's identity provider does not answer
    │   │   │   └── IdentityUnusable     it does, and what it says or our settings must be mended by a person first
    │   │   ├── GrantUnavailable         Syncaroo gives us no valid token now
    │   │   └── CallsUnavailable         its API's host wants a pause, or our budget of calls is used up
    │   └── UpstreamFailed               Syncaroo answered with trouble that passes
    ├── Permanent(reason)                never again like this: park it, refuse it
    │   ├── BadJson
    │   ├── ForbiddenHost
    │   └── UpstreamRefused              Syncaroo's answer is final
    └── SettingsError(faults)            the process must not start (exit 78)

Foreign exceptions are wrapped at the edge that meets them, `raise … from`.
"""

from __future__ import annotations

from collections.abc import Sequence


class GatewayError(Exception):
    """Root of all errors of ours."""


class Retryable(GatewayError):
    """May succeed later; `retry_after` in seconds when somebody told us."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(Retryable):
    """Something we stand on is away."""


class BrokerUnavailable(Unavailable):
    """The broker did not confirm: down, frozen, blocked, refusing, or not set up. The outcome may be unknown."""


class StoreUnavailable(Unavailable):
    """The database is down, locked, full, read-only, or has not the schema of this version."""


class IdentityUnavailable(Unavailable):
    """The platform's identity provider is down, slow, or answers in a way that nobody can be logged in with."""


class IdentityUnusable(IdentityUnavailable):
    """It answers, and nobody can be logged in before a person has mended its settings or ours."""


class GrantUnavailable(Unavailable):
    """There is no valid token for Syncaroo's API now: being renewed, or a person must authorise us again."""


class CallsUnavailable(Unavailable):
    """No call to Syncaroo's API is free now: its host wants a pause, or others use the budget up."""


class UpstreamFailed(Retryable):
    """Syncaroo answered 5xx or 429, timed out, or broke off; `status` is 0 without an answer."""

    def __init__(self, message: str, *, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.status = status


class Permanent(GatewayError):
    """Will never succeed like this; `reason` is a stable word for parked rows and counters."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class BadJson(Permanent):
    """Not strict JSON."""

    def __init__(self, detail: str) -> None:
        super().__init__("bad_json", detail)


class ForbiddenHost(Permanent):
    """A Syncaroo token must not go there (CONTRACT §5.5)."""

    def __init__(self, detail: str) -> None:
        super().__init__("forbidden_host", detail)


class UpstreamRefused(Permanent):
    """Syncaroo's answer is final: a 4xx, a redirect, a wrong type, too large."""

    def __init__(self, reason: str, detail: str = "", *, status: int = 0) -> None:
        super().__init__(reason, detail)
        self.status = status


class SettingsError(GatewayError):
    """Settings are wrong; one readable line per fault, with the name and never the value."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)
