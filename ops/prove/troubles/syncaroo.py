"""Syncaroo fails, lags, lies, refuses, and loses what it should tell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from ops.prove.plan import Kind
from ops.prove.troubles.scene import Happen, Scene, Struck

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
    ("webhooks get lost", "webhook_lost", {}),
    ("webhooks come twice", "webhook_double", {}),
    ("webhooks come out of order", "webhook_reorder", {}),
    ("webhooks with a wrong hash", "webhook_wrong_hash", {}),
    ("webhooks lead elsewhere", "webhook_api_url", {"foreign": True}),
)


OF_TOKENS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("tokens answer 503", "token_status", {"status": 503}),
    ("tokens are slow", "token_slow", {"seconds": 2.0}),
    ("tokens reset connections", "token_drop", {"consume": False}),
    ("tokens' answers get lost", "token_drop", {"consume": True}),
)


def happenings() -> dict[Kind, Happen]:
    """Every fault of the stand-in."""
    found: dict[Kind, Happen] = {
        Kind("tokens refused", ("tokens",)): tokens_refused,
        Kind("webhooks with a wrong token", ("webhook_bad_token",)): wrong_token,
    }
    for name, kind, parameters in FAULTS:
        found[Kind(name, (kind,))] = partial(wrong, kind, **parameters)
    for name, kind, parameters in OF_TOKENS:
        found[Kind(name, ("tokens",), (3.0, 8.0))] = partial(wrong_tokens, kind, **parameters)
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
async def wrong_tokens(kind: str, scene: Scene, **parameters: Any) -> AsyncIterator[Struck]:
    """Something is wrong with all that is said of tokens; and we have to ask for one, as ours are refused."""
    since = await scene.number()

    async def struck() -> bool:
        return any(kind in one.fault for one in (await scene.stage.sandbox.records(after=since)).tokens)

    async with wrong(kind, scene, probability=1.0, **parameters), tokens_refused(scene):
        yield struck


@asynccontextmanager
async def wrong_token(scene: Scene) -> AsyncIterator[None]:
    """Some webhooks do not show what we have issued."""
    async with scene.noted(scene.unfit), wrong("webhook_bad_token", scene):
        yield
