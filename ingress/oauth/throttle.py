"""How often a password may be guessed: per account and per address, in this process's memory.

Ours: after 5 wrong ones in a row for an account, or 20 from an address, wait half a minute; each further one doubles
that, up to a quarter of an hour. An hour without a wrong one forgives.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from common.clock import Monotonic

ACCOUNT_LIMIT = 5
ADDRESS_LIMIT = 20
FIRST_WAIT = 30.0
LONGEST_WAIT = 900.0
FORGIVEN_AFTER = 3600.0
MAX_ENTRIES = 10_000
MAX_NAME = 200


@dataclass
class _Guesses:
    wrong: int = 0
    last: float = 0.0
    blocked_until: float = 0.0


class Throttle:
    """Counts wrong passwords; bounded: the entries that were touched longest ago go first."""

    def __init__(self, clock: Monotonic) -> None:
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], _Guesses] = OrderedDict()

    def wait(self, login: str, address: str) -> float:
        """Seconds until the next password may be tried; 0: now."""
        now = self._clock()
        entries = [self._entries.get(key) for key in _keys(login, address)]
        return max([0.0, *(entry.blocked_until - now for entry in entries if entry is not None)])

    def failed(self, login: str, address: str) -> None:
        """A password was wrong."""
        account, source = _keys(login, address)
        self._count(account, ACCOUNT_LIMIT)
        self._count(source, ADDRESS_LIMIT)

    def succeeded(self, login: str) -> None:
        """A password was right: the account's row of wrong ones has ended."""
        self._entries.pop(_keys(login, "")[0], None)

    def _count(self, key: tuple[str, str], limit: int) -> None:
        now = self._clock()
        entry = self._entries.pop(key, None)
        if entry is None or now - entry.last > FORGIVEN_AFTER:
            entry = _Guesses()
        entry.wrong += 1
        entry.last = now
        if entry.wrong >= limit:
            entry.blocked_until = now + wait_after(entry.wrong - limit)
        self._entries[key] = entry
        while len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)


def wait_after(beyond: int) -> float:
    """Seconds to wait when the limit was reached `beyond` wrong passwords ago."""
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(beyond, 16))


def _keys(login: str, address: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("account", login[:MAX_NAME]), ("address", address)
