"""Syncaroo fails, lags, lies, refuses, and loses what it should tell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from ops.prove.plan import Kind
from ops.prove.troubles.scene import Happen, Scene

PORTION = 0.3
"""Of calls or webhooks that are hit while something is wrong with them."""

FAULTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("API answers 503", "api_status", {"status": 503}),
    ("API answers 429", "api_status", {"status": 429, "retry_after": 1}),
    ("API resets connections", "api_reset", {}),
    ("API answers half", "api_truncate", {}),
    ("API answers HTML", "api_html", {}),
    ("API is slow", "api_slow", {"seconds": 3.0}),
    ("API shows what was", "api_stale", {"seconds": 2.0}),
    ("API moves items between pages", "api_move", {"page": 1}),
    ("API counts wrongly", "api_count", {}),
    ("API leaves pages out", "api_no_pages", {}),
    ("API repeats a page", "api_next", {"value": "repeated"}),
    ("API redirects elsewhere", "api_redirect", {"foreign": True}),
    ("API's next page is elsewhere", "api_next", {"value": "foreign", "foreign": True}),
    ("tokens answer 503", "token_status", {"status": 503}),
    ("tokens are slow", "token_slow", {"seconds": 2.0}),
    ("tokens reset connections", "token_drop", {"consume": False}),
    ("webhooks get lost", "webhook_lost", {}),
    ("webhooks come twice", "webhook_double", {}),
    ("webhooks come out of order", "webhook_reorder", {}),
    ("webhooks with a wrong hash", "webhook_wrong_hash", {}),
    ("webhooks with a wrong token", "webhook_bad_token", {}),
    ("webhooks lead elsewhere", "webhook_api_url", {"foreign": True}),
)


def happenings() -> dict[Kind, Happen]:
    """Every fault of the stand-in, tokens that it refuses, and such as get lost."""
    found: dict[Kind, Happen] = {
        Kind("tokens refused", ("tokens",)): tokens_refused,
        Kind("tokens' answers get lost", ("tokens", "token_drop")): answers_lost,
    }
    for name, kind, parameters in FAULTS:
        found[Kind(name, (kind,))] = partial(wrong, kind, **parameters)
    return found


@asynccontextmanager
async def wrong(kind: str, scene: Scene, **parameters: Any) -> AsyncIterator[None]:
    """Something is wrong with its API, its tokens or its webhooks."""
    if parameters.pop("foreign", False):
        parameters["url"] = scene.foreign.url
    await scene.stage.sandbox.fault(kind, **{"count": None, "probability": PORTION, **parameters})
    try:
        yield
    finally:
        await scene.stage.sandbox.clear_faults(kind)


@asynccontextmanager
async def tokens_refused(scene: Scene) -> AsyncIterator[None]:
    """All access tokens that we hold are refused from now on."""
    await scene.stage.sandbox.expire_access()
    yield


@asynccontextmanager
async def answers_lost(scene: Scene) -> AsyncIterator[None]:
    """Whatever we are given, in exchange for what has been used up by then, does not come; and we have to ask."""
    async with wrong("token_drop", scene, consume=True, probability=1.0), tokens_refused(scene):
        yield
