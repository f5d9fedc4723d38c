"""The webhook's `hash`, by any recipe `ALGO:SERIALISATION:ENCODING`. Pure.

Documented by Syncaroo: "an encrypted hash of the whole webhook object (excluding `hash`)". Algorithm, key,
serialisation and encoding are not published: the recipes are ours, and `matching` finds out which of them a real
webhook follows.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from common.codec import canonical_bytes, dumps, loads
from common.errors import BadJson
from schemas.messages import Json

MEMBER = "hash"
ALGORITHMS = ("hmac-sha256", "hmac-sha1", "hmac-md5", "sha256", "sha1", "md5")
SERIALISATIONS = ("sorted", "compact", "php", "cut")
ENCODINGS = ("hex", "base64")

Verdict = Literal["match", "mismatch", "missing"]

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\],]', re.DOTALL)
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


@dataclass(frozen=True)
class Recipe:
    """How a hash is made. A plain digest has no key: it tells accidents from intent, not friend from foe."""

    algorithm: str
    serialisation: str
    encoding: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.serialisation}:{self.encoding}"


RECIPES = tuple(
    Recipe(algorithm, how, encoding) for algorithm in ALGORITHMS for how in SERIALISATIONS for encoding in ENCODINGS
)


def parse_recipe(text: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: there is none.
    """
    for recipe in RECIPES:
        if str(recipe) == text:
            return recipe
    raise ValueError("is not ALGO:SERIALISATION:ENCODING, such as hmac-sha256:sorted:hex")


def verify(raw: bytes, body: dict[str, Json], recipe: Recipe, keys: Sequence[str]) -> Verdict:
    """Judge the `hash` in a body (`raw` as it came, `body` decoded), against any of the keys, in constant time."""
    given = body.get(MEMBER)
    if given is None or given == "":
        return "missing"
    if not isinstance(given, str):
        return "mismatch"
    presented = given.encode()
    if recipe.encoding == "hex":
        presented = presented.lower()
    message = serialise(raw, body, recipe.serialisation)
    matches = [hmac.compare_digest(presented, digest(message, recipe, key)) for key in keys]
    return "match" if any(matches) else "mismatch"


def matching(raw: bytes, keys: Sequence[str]) -> list[str]:
    """The recipes that explain the hash of a webhook.

    Raises:
        BadJson: it is not a strict JSON object.
    """
    body = loads(raw)
    if not isinstance(body, dict):
        raise BadJson("not an object")
    return [str(recipe) for recipe in RECIPES if verify(raw, body, recipe, keys) == "match"]


def digest(message: bytes, recipe: Recipe, key: str) -> bytes:
    """The hash of serialised bytes as ASCII text; `key` counts for HMAC only."""
    if recipe.algorithm.startswith("hmac-"):
        made = hmac.digest(key.encode(), message, recipe.algorithm.removeprefix("hmac-"))
    else:
        made = hashlib.new(recipe.algorithm, message, usedforsecurity=False).digest()
    return made.hex().encode() if recipe.encoding == "hex" else base64.b64encode(made)


def serialise(raw: bytes, body: dict[str, Json], how: str) -> bytes:
    """The bytes that are hashed: the body without its `hash`."""
    if how == "cut":
        return cut(raw)
    rest = {name: value for name, value in body.items() if name != MEMBER}
    if how == "sorted":
        return canonical_bytes(rest)
    compact = dumps(rest)
    return _as_php(compact) if how == "php" else compact


def cut(raw: bytes) -> bytes:
    """The raw bytes of a JSON object without the member `hash` and one comma beside it."""
    depth = 0
    begin = 0  # right behind the brace or on the comma before the current member
    name: bytes | None = None
    for token in _TOKEN.finditer(raw):
        text = token[0]
        if text in b"{[":
            depth += 1
            begin = token.end() if depth == 1 else begin
        elif depth == 1 and text in b",}":
            if name is not None and loads(name) == MEMBER:
                return _without(raw, begin, token.start())
            begin, name = token.start(), None
        elif depth == 1 and name is None:
            name = text
        if text in b"}]":
            depth -= 1
    return raw


def _without(raw: bytes, begin: int, end: int) -> bytes:
    member = raw[begin:end]
    if member.startswith(b","):
        return raw[:begin] + raw[begin + len(member.rstrip()) :]
    begin += len(member) - len(member.lstrip())
    after = raw[end:]
    rest = after[1:].lstrip() if after.startswith(b",") else raw[begin + len(raw[begin:end].rstrip()) :]
    return raw[:begin] + rest


def _as_php(compact: bytes) -> bytes:
    """As PHP's json_encode writes it: slashes and everything beyond ASCII escaped."""
    escaped = _NOT_ASCII.sub(_escape, compact.decode())
    return escaped.replace("/", "\\/").encode()


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
