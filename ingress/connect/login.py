"""Logging an operator in: one secret, the `ADMIN_TOKEN`, guessed only so often."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from common.crypto import any_secret, same_secret
from common.settings import AdminSettings
from ingress.oauth.throttle import Throttle, of_account, of_address


@dataclass(frozen=True)
class Operator:
    """Who holds a token."""

    name: str
    token: str = field(repr=False)

    @property
    def mark(self) -> str:
        """Another one when the token is another, or another's: sessions end with it."""
        return hashlib.sha256(f"{self.name}:{self.token}".encode()).hexdigest()[:32]


class AdminLogin:
    """Knows who may operate now."""

    def __init__(self, admin: AdminSettings, throttle: Throttle) -> None:
        self._operators = [_operator(secret.get_secret_value()) for secret in admin.admin_token]
        self._throttle = throttle

    def wait(self, address: str) -> float:
        """Seconds until the next guess from this address is looked at; 0: now."""
        return self._throttle.wait(of_account(_row(address)), of_address(address))

    def attempt(self, token: str, address: str) -> Operator | None:
        """The holder, or None for a wrong token."""
        matches = [operator for operator in self._operators if same_secret(token, operator.token)]
        if not matches:
            self._throttle.failed(of_account(_row(address)), of_address(address))
            return None
        self._throttle.succeeded(of_account(_row(address)))
        return matches[0]

    def knows(self, mark: str) -> bool:
        """Whether it is the mark of somebody who may still operate."""
        return any_secret(mark, [operator.mark for operator in self._operators])


def _operator(setting: str) -> Operator:
    name, _, token = setting.rpartition(":")
    return Operator(name or "admin", token)


def _row(address: str) -> str:
    """Wrong guesses in a row count per address: a stranger must not be able to lock the operator out."""
    return f"admin from {address}"
