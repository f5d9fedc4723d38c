"""A connection as its user sees it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

_STANDINGS = {
    "authorised": ("waiting for Syncaroo", ""),
    "confirmed": ("connected", "good"),
    "revoked": ("revoked", ""),
}


@dataclass(frozen=True)
class Connection:
    """A user's own connection; `heard_at`: when Syncaroo last told that something changed."""

    connection_id: int
    state: str
    created_at: datetime
    confirmed_at: datetime | None
    revoked_at: datetime | None
    heard_at: datetime | None

    @property
    def live(self) -> bool:
        """Whether there is something to revoke."""
        return self.state != "revoked"

    @property
    def standing(self) -> str:
        """The state in words."""
        return _STANDINGS[self.state][0]

    @property
    def mood(self) -> str:
        """How it is to be looked at."""
        return _STANDINGS[self.state][1]

    @property
    def since(self) -> datetime:
        """When it was confirmed, else when the user consented."""
        return self.confirmed_at or self.created_at
