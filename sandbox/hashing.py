"""The webhook's `hash` by any recipe `ALGO:SERIALISATION:ENCODING`: pure functions over the body without `hash`.

Syncaroo publishes none; these are the ones that webhook senders commonly use.
"""

import base64
import hashlib
import hmac
import json
from typing import Any

ALGORITHMS = ("hmac-sha256", "hmac-sha1", "hmac-md5", "sha256", "sha1", "md5")
SERIALISATIONS = ("sorted", "compact", "php", "cut")
ENCODINGS = ("hex", "base64")


def check_recipe(recipe: str) -> str:
    """The recipe itself. Raises ValueError when it is none."""
    parts = recipe.split(":")
    if len(parts) != 3 or any(part not in known for part, known in zip(parts, _KNOWN, strict=False)):
        raise ValueError(f"hash recipe is ALGO:SERIALISATION:ENCODING, not {recipe!r}")
    return recipe


def digest(body: dict[str, Any], recipe: str, key: str) -> str:
    """The `hash` of a body (without the member) by a recipe; `key` counts for hmac only."""
    algorithm, serialisation, encoding = check_recipe(recipe).split(":")
    raw = _digest(serialise(body, serialisation), algorithm, key.encode())
    return raw.hex() if encoding == "hex" else base64.b64encode(raw).decode()


def serialise(body: dict[str, Any], serialisation: str) -> bytes:
    """The bytes that are hashed; `cut` equals `compact`, since our webhooks travel compact with `hash` at the end."""
    if serialisation == "php":
        return json.dumps(body, separators=(",", ":")).replace("/", "\\/").encode()
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False, sort_keys=serialisation == "sorted").encode()


def signed(body: dict[str, Any], recipe: str, key: str) -> bytes:
    """The webhook as it travels, `hash` at the end; a PHP sender's bytes when the recipe is `php`."""
    whole = body | {"hash": digest(body, recipe, key)} if recipe else body
    return serialise(whole, "php" if ":php:" in recipe else "compact")


def _digest(data: bytes, algorithm: str, key: bytes) -> bytes:
    if algorithm.startswith("hmac-"):
        return hmac.digest(key, data, algorithm.removeprefix("hmac-"))
    return hashlib.new(algorithm, data, usedforsecurity=False).digest()


_KNOWN = (ALGORITHMS, SERIALISATIONS, ENCODINGS)
