"""Logging an operator in: one secret, the `ADMIN_TOKEN`, guessed only so often."""

from __future__ import annotations

from common.crypto import same_secret
from common.settings import AdminSettings
from ingress.oauth.throttle import Throttle, of_account, of_address


class AdminLogin:
    """Knows the tokens by the names of those who hold them."""

    def __init__(self, admin: AdminSettings, throttle: Throttle) -> None:
        self._tokens = [_named(secret.get_secret_value()) for secret in admin.admin_token]
        self._throttle = throttle

    def wait(self, address: str) -> float:
        """Seconds until the next guess from this address is looked at; 0: now."""
        return self._throttle.wait(of_account(_row(address)), of_address(address))

    def attempt(self, token: str, address: str) -> str | None:
        """The holder's name, or None for a wrong token."""
        matches = [name for name, expected in self._tokens if same_secret(token, expected)]
        if not matches:
            self._throttle.failed(of_account(_row(address)), of_address(address))
            return None
        self._throttle.succeeded(of_account(_row(address)))
        return matches[0]


def _named(setting: str) -> tuple[str, str]:
    name, _, token = setting.rpartition(":")
    return name or "admin", token


def _row(address: str) -> str:
    """Wrong guesses in a row count per address: a stranger must not be able to lock the operator out."""
    return f"admin from {address}"
