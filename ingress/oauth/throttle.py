"""How often a secret may be guessed: per account, per address, per client's address, in this process's memory.

Ours. After so many wrong ones in a row one waits; each further one doubles that, up to a longest wait. An hour without
a wrong one forgives.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address

from common.clock import Monotonic

FORGIVEN_AFTER = 3600.0
MAX_ENTRIES = 10_000
"""Of each limit."""
MAX_NAME = 200


@dataclass(frozen=True)
class Limit:
    """From `wrong` wrong ones in a row on, wait: `first` seconds, twice as long after each further one, at most
    `longest`."""

    wrong: int
    first: float
    longest: float

    def wait_after(self, wrong: int) -> float:
        """Seconds to wait after so many wrong ones."""
        beyond = wrong - self.wrong
        return 0.0 if beyond < 0 else min(self.longest, self.first * 2.0 ** min(beyond, 16))


ACCOUNT = Limit(5, 30.0, 900.0)
ADDRESS = Limit(20, 30.0, 900.0)
CLIENT = Limit(50, 1.0, 60.0)
"""Milder: a client's secret is not one that people think up, and whoever shares Syncaroo's address must not be able to
keep it out for long."""

Key = tuple[Limit, str]


def of_account(login: str) -> Key:
    """Passwords for one account, wherever they come from."""
    return ACCOUNT, login[:MAX_NAME]


def of_address(address: str) -> Key:
    """Passwords from one address, whatever account they are for."""
    return ADDRESS, _network(address)


def of_client(address: str) -> Key:
    """Client secrets from one address."""
    return CLIENT, _network(address)


class Throttle:
    """Counts wrong ones; bounded, each limit for itself, so that what is guessed cheaply displaces nothing else.

    Entries that block nobody now go first, of these the ones that were touched longest ago.
    """

    def __init__(self, clock: Monotonic) -> None:
        self._clock = clock
        self._entries: defaultdict[Limit, OrderedDict[str, _Guesses]] = defaultdict(OrderedDict)

    def wait(self, *keys: Key) -> float:
        """Seconds until the next one may be tried; 0: now."""
        now = self._clock()
        entries = [self._entries[limit].get(name) for limit, name in keys]
        return max([0.0, *(entry.blocked_until - now for entry in entries if entry is not None)])

    def failed(self, *keys: Key) -> None:
        """One was wrong."""
        for limit, name in keys:
            self._count(limit, name)

    def succeeded(self, *keys: Key) -> None:
        """One was right: the row of wrong ones has ended."""
        for limit, name in keys:
            self._entries[limit].pop(name, None)

    def _count(self, limit: Limit, name: str) -> None:
        now = self._clock()
        entries = self._entries[limit]
        entry = entries.pop(name, None)
        if entry is None or now - entry.last > FORGIVEN_AFTER:
            entry = _Guesses()
        entry.wrong += 1
        entry.last = now
        entry.blocked_until = now + limit.wait_after(entry.wrong)
        if len(entries) >= MAX_ENTRIES:
            oldest = next(iter(entries))
            del entries[next((each for each, of in entries.items() if of.blocked_until <= now), oldest)]
        entries[name] = entry


@dataclass
class _Guesses:
    wrong: int = 0
    last: float = 0.0
    blocked_until: float = 0.0


def _network(address: str) -> str:
    """An IPv6 address's /64, which one person has whole; anything else as it is."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    return str(parsed.ipv4_mapped or IPv6Network((parsed, 64), strict=False))
