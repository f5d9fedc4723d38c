"""Every point at which a process is killed, stopped or surprised, as one table: which role, and what is reached there.

`POINTS[name].install(reach)` wraps the seam in the running process, where several may be installed. Names are
`<stage>.<where>`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from common.broker.outgoing import PublishRefused
from common.broker.topology import LOG
from common.errors import Permanent, UpstreamFailed
from sandbox.driver import SandboxDriver
from sandbox.records import fingerprint
from tests.kill.seams import Install, Method, Reach, after, before, before_commit, between_writes, replace
from tests.waiting import until

PUBLISH = "common.broker.publisher:Publisher.publish"
OAUTH = "ingress.oauth.store:OAuthStore"
MARKS = "workers.fetch.store.marks:MarkStore"
CLAIMS = "workers.fetch.store.claims:ClaimStore"
OUTCOMES = "workers.fetch.store.outcomes:OutcomeStore"
SUSPECTS = "workers.fetch.store.suspects:SuspectStore"
PARKING = "common.parking:ParkingHandler"
KEEP = "workers.fetch.walking:KEEP_SECONDS"
CHUNK = "common.store.targets:MARK_CHUNK"
LISTINGS = "workers.reconcile.store.listings:ListingStore"
LINE = "common.broker.broadcast:_Line"
EVENTS = "workers.relay.store.events:EventStore"
GRANTS = "workers.token.store:GrantStore"
TOKENS = "workers.token.client:TokenClient"


@dataclass(frozen=True)
class Point:
    """`role` is what `ops.stack.ROLES` calls the process that gets there, `nth` the how-manieth time counts."""

    name: str
    role: str
    install: Install
    nth: int = 1


def to(key: str) -> Callable[..., bool]:
    """Of publishes: those with a routing key that begins so."""
    return lambda message, *_: message.routing_key.startswith(key)


def to_log(message: Any, *_: Any) -> bool:
    """Of publishes: those to the event log alone."""
    return bool(message.exchange == LOG)


def page_2(url: str, *_: Any) -> bool:
    """Of requests: those for the second page of a list."""
    return "page=2" in url


def something(*given: Any) -> bool:
    """Of calls that have returned: those that gave something."""
    return bool(given[-1])


def claims(*given: Any) -> bool:
    """Of looks for work: those that found some."""
    return bool(given[-1][0])


def told_here(claim: Any, *_: Any) -> bool:
    """Of claims: those of lists that only the test of kills asks for, spelt with a slash at the end."""
    return bool(claim.url.endswith("/"))


def with_pages(_claim: Any, status: int) -> bool:
    """Of answers: those that something was published of."""
    return status == 200


def kept(claim: Any, walk: str | None, _number: int | None) -> bool:
    """Of calls over such a list: those before which the progress of the walk was kept."""
    return told_here(claim) and walk is not None


def tells_gone(message: Any, *_: Any) -> bool:
    """Of publishes: those that say of an item that it is gone."""
    return bool(message.headers.get("schema") == "ItemGone")


def some_absent(_claim: Any, _seen_ids: Any, judged: Any) -> bool:
    """Of walks that are judged: those that missed a known item, in whichever spelling the list was asked for."""
    return bool(judged.asked)


def having(constant: str, value: Any, install: Install) -> Install:
    """With another value of the constant, so that the point is reached by little work."""

    def install_with_it(reach: Reach) -> None:
        module, _, name = constant.partition(":")
        setattr(import_module(module), name, value)
        install(reach)

    return install_with_it


def under_way(seam: str) -> Install:
    """Reached when the stand-in has what it was called with, a secret, whose answer nobody here has seen."""

    def install(reach: Reach) -> None:
        def wrap(original: Method) -> Method:
            async def wrapped(self: Any, secret: str) -> Any:
                asking = asyncio.ensure_future(original(self, secret))

                async def has_left() -> bool:
                    return asking.done() or await _was_presented(secret)

                await until(has_left, 60, what="the request to arrive")
                if await _was_presented(secret):
                    reach()
                return await asking

            return wrapped

        replace(seam, wrap)

    return install


async def _was_presented(secret: str) -> bool:
    async with SandboxDriver(os.environ["SYNCAROO_BASE_URL"]) as sandbox:
        return any(one.presented == fingerprint(secret) for one in (await sandbox.records()).tokens)


def moved(error: Exception, key: str) -> Install:
    """Reconcile refuses every message with this error; reached when the copy of one has been confirmed under `key`."""
    return until_reached(failing("workers.reconcile.handler:ReconcileHandler.__call__", error), after(PUBLISH, to(key)))


def refused(install: Install) -> Install:
    """Every event is refused by a subscriber, after all others were given it."""
    return until_reached(failing(f"{LINE}.confirms", PublishRefused("as ordered"), called=True), install)


def failing(seam: str, error: Exception, *, called: bool = False) -> Callable[[Callable[[], bool]], None]:
    """What fails with this error as long as it is told so; `called`: after it has done what it does."""

    def install(is_on: Callable[[], bool]) -> None:
        def wrap(original: Method) -> Method:
            async def fails(self: Any, *given: Any) -> Any:
                if called or not is_on():
                    result = await original(self, *given)
                if is_on():
                    raise error
                return result

            return fails

        replace(seam, wrap)

    return install


def until_reached(trouble: Callable[[Callable[[], bool]], None], install: Install) -> Install:
    """With a trouble that leads to the point, and ends with it."""

    def install_with_it(reach: Reach) -> None:
        leads = True

        def reached() -> None:
            nonlocal leads
            leads = False
            reach()

        trouble(lambda: leads)
        install(reached)

    return install_with_it


_TABLE = [
    Point("ingress.authenticated", "ingress", before("ingress.webhook.handler:WebhookHandler._accept")),
    Point("ingress.before_publish", "ingress", before(PUBLISH, to("fetch."))),
    Point("ingress.after_confirm", "ingress", after(PUBLISH, to("fetch."))),
    Point("provider.code_redeemed", "ingress", after(f"{OAUTH}.redeem", something)),
    Point("provider.rotated", "ingress", after(f"{OAUTH}.rotate", something)),
    Point("fetch.delivered", "fetch", before("workers.fetch.handler:MarkHandler.__call__")),
    Point("fetch.before_mark_commits", "fetch", before_commit(f"{MARKS}.mark")),
    Point("fetch.marked", "fetch", after(f"{MARKS}.mark")),
    Point("fetch.claimed", "fetch", after(f"{CLAIMS}.claim", claims)),
    Point("fetch.after_page_1", "fetch", before("workers.fetch.client:SyncarooApi.get", page_2)),
    Point("fetch.published", "fetch", between_writes(f"{OUTCOMES}.answered", with_pages)),
    Point("fetch.walk_kept", "fetch", having(KEEP, 0.0, after(f"{OUTCOMES}.next_call", kept))),
    Point("fetch.numbered", "fetch", after(f"{OUTCOMES}.next_call", something)),
    Point("fetch.before_outcome_commits", "fetch", before_commit(f"{OUTCOMES}.answered")),
    Point("fetch.answered", "fetch", after(f"{OUTCOMES}.answered")),
    Point("fetch.putting_off_commits", "fetch", before_commit(f"{OUTCOMES}.put_off")),
    Point("fetch.giving_up_commits", "fetch", before_commit(f"{OUTCOMES}.park")),
    Point("fetch.gone_published", "fetch", after(PUBLISH, tells_gone)),
    Point("fetch.before_suspects_commit", "fetch", before_commit(f"{SUSPECTS}.judge")),
    Point("fetch.suspected", "fetch", after(f"{SUSPECTS}.judge", some_absent)),
    Point("fetch.parking_commits", "fetch", before_commit(f"{PARKING}.__call__")),
    Point("fetch.parked", "fetch", after(f"{PARKING}.__call__")),
    Point("fetch.resync_half_marked", "fetch", having(CHUNK, 2, before_commit(f"{MARKS}.mark_known")), nth=3),
    Point("reconcile.in_transaction", "reconcile", before_commit(f"{LISTINGS}.apply")),
    Point("reconcile.committed", "reconcile", after(f"{LISTINGS}.apply", something)),
    Point("retry.copied", "reconcile", moved(UpstreamFailed("as ordered"), "delay.reconcile.")),
    Point("park.published", "reconcile", moved(Permanent("as_ordered"), "dead.reconcile")),
    Point("relay.elected", "relay", after("common.store.leader:Leadership.held", something)),
    Point("relay.read", "relay", between_writes(f"{EVENTS}.events_at")),
    Point("relay.before_publish", "relay", before("common.broker.broadcast:Broadcast.publish"), nth=2),
    Point("relay.refused", "relay", refused(before(PUBLISH, to_log))),
    Point("relay.logged", "relay", refused(after(PUBLISH, to_log))),
    Point("relay.published", "relay", between_writes(f"{EVENTS}.published")),
    Point("relay.marking_commits", "relay", before_commit(f"{EVENTS}.published")),
    Point("relay.marked", "relay", after(f"{EVENTS}.published")),
    Point("refresh.intent", "token", after(f"{GRANTS}.claim_refresh", something)),
    Point("refresh.sent", "token", under_way(f"{TOKENS}.refresh")),
    Point("refresh.answered", "token", after(f"{TOKENS}.refresh")),
    Point("refresh.committed", "token", after(f"{GRANTS}.keep", something)),
    Point("callback.used", "ingress", before(PUBLISH, to("token."))),
    Point("callback.published", "ingress", after(PUBLISH, to("token."))),
    Point("callback.intent", "token", after(f"{GRANTS}.claim_code", something)),
    Point("callback.sent", "token", under_way(f"{TOKENS}.exchange")),
    Point("callback.exchanged", "token", after(f"{TOKENS}.exchange")),
    Point("callback.committed", "token", after(f"{GRANTS}.keep", something)),
]

POINTS = {point.name: point for point in _TABLE}
OF_THE_GRANT = [name for name in POINTS if name.startswith(("refresh.", "callback."))]
"""Points on the way to Syncaroo's tokens: played by `test_grant`, all others by `test_kills` and `test_surprises`."""
OF_THE_FLOW = [name for name in POINTS if name not in OF_THE_GRANT]

STEPS: Mapping[str, str] = {
    "ingress after auth": "ingress.authenticated",
    "ingress before publish": "ingress.before_publish",
    "ingress after confirm": "ingress.after_confirm",
    "fetch after delivery": "fetch.delivered",
    "fetch after the sequence number": "fetch.numbered",
    "fetch after page 1": "fetch.after_page_1",
    "fetch after publish": "fetch.published",
    "reconcile inside the transaction": "reconcile.in_transaction",
    "reconcile after commit": "reconcile.committed",
    "relay after claim": "relay.read",
    "relay after publish": "relay.published",
    "refresh after intent": "refresh.intent",
    "refresh after send": "refresh.sent",
    "refresh after response": "refresh.answered",
    "refresh after commit": "refresh.committed",
    "provider after code redeemed": "provider.code_redeemed",
    "provider after rotation": "provider.rotated",
    "callback after exchange": "callback.exchanged",
    "retry after the copy": "retry.copied",
    "park after the publish": "park.published",
}
"""RELIABILITY §5.4: points to die at."""
