"""Texts that others wrote, as a person may see them: names of listings, without what would move a terminal. Pure."""

from __future__ import annotations

import re
from typing import Any

_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters: C0 with escape, C1, which some terminals read as escape sequences
    "\u061c\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of the text around it, or hides
    "\u2028\u2029\ufeff\ud800-\udfff]"  # ends of lines to some, marks, halves of characters
)

_NAMES = ("Name", "name", "title", "period")
"""Members that name a listing, the first of them that there is: rates have a period."""


def harmless(text: str) -> str:
    """The text with what a terminal would obey, or a person not see, spelled out: `\\u001b`, as JSON would.

    Within the text of JSON only strings hold such characters, and there it changes nothing of what the text means.
    """
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def name_of(current: Any) -> str:
    """What a person would call a listing."""
    if not isinstance(current, dict):
        return ""
    return str(next((current[name] for name in _NAMES if current.get(name)), ""))
