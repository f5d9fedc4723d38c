"""Numbers in sentences. Pure."""

from __future__ import annotations


def things(number: int, thing: str) -> str:
    """`1 listing`, `2,000 listings`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
