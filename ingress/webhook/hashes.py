"""Judging the `hash` of webhooks by the settings, and keeping the last that did not match, for `gateway hash probe`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Literal

from common.settings import PlatformSettings, WebhookSettings
from ingress.webhook.signature import Recipe, Verdict, verify
from schemas.messages import Json

KEPT = 20


def keys_of(platform: PlatformSettings, webhook: WebhookSettings) -> list[str]:
    """The keys that a hash may be made with: the key's own setting, else any of the platform's secrets."""
    key = webhook.webhook_hash_key
    return platform.secrets() if key is None else [key.get_secret_value()]


class HashCheck:
    """`off` judges nothing, `observe` only tells, `enforce` lets nothing pass that does not match."""

    def __init__(self, mode: Literal["off", "observe", "enforce"], recipe: Recipe, keys: Sequence[str]) -> None:
        self._mode = mode
        self._recipe = recipe
        self._keys = keys
        self.unmatched: deque[bytes] = deque(maxlen=KEPT)
        """The last raw bodies whose hash was wrong or missing; in memory only."""

    def judge(self, raw: bytes, body: dict[str, Json]) -> Verdict | None:
        """What the hash shows; None: not looked at."""
        if self._mode == "off":
            return None
        verdict = verify(raw, body, self._recipe, self._keys)
        if verdict != "match":
            self.unmatched.append(raw)
        return verdict

    def lets_pass(self, verdict: Verdict | None) -> bool:
        """Whether a webhook with this verdict is taken."""
        return self._mode != "enforce" or verdict == "match"
