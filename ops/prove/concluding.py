"""The end of the play: what must be right by itself, what a resync makes good, and what nobody may have written."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from ops.demo import story
from ops.demo.stage import Stage
from ops.ledger import Evidence, Ledger, audit, unheeded
from ops.prove.operator import Operator
from ops.prove.plan import Trouble
from ops.prove.troubles.scene import Scene

SETTLE_SECONDS = 180.0
STILL_SECONDS = 6.0
"""So long nothing more may happen: retries and second looks come within three."""
MAY_PARK = frozenset({"forbidden_host", "not_json", "redirected", "not_found"})
"""What Syncaroo's lies lead to."""
BUGS = ("handler.failed", "consumer.bug", "fetch.bug", "relay.bug", "grant.bug", "process.failed", "request.failed")
"""What is written of what nobody thought of."""


async def concluded(scene: Scene, plan: Sequence[Trouble], operator: Operator) -> Ledger:
    """The ledger, once everything is mended and nothing moves any more.

    Raises:
        StoryFailed: it goes on moving, or our access to Syncaroo cannot be had again.
    """
    stage = scene.stage
    await stage.sandbox.clear_faults()
    with stage.tell.step("everything is mended, and works off what is left"):
        scene.look_for_the_dead()
        await stage.stack.wait_ready()
        await stage.sandbox.quiet()
        await _authorised(stage, operator)
        await stage.until(lambda: _is_idle(stage), "nothing is due any more", SETTLE_SECONDS)
    with stage.tell.step("what accepted webhooks told is in the store") as step:
        lost = await _lost(scene, plan)
        step.note("all of them are" if not lost else f"{len(lost)} ARE NOT")
    with stage.tell.step("a resync asks for what was lost on the way to us; everything is settled"):
        await stage.admin.resync(story.CONNECTION)
        ledger = await _still(scene, plan)
    evidence = await _evidence(scene, plan)
    complaints = [*_odd_letters(ledger), *_bugs(stage), *_called_in_vain(evidence, operator)]
    return replace(
        ledger, lost=tuple(dict.fromkeys((*lost, *ledger.lost))), violations=(*ledger.violations, *complaints)
    )


async def _authorised(stage: Stage, operator: Operator) -> None:
    """A last look, at what happened in the last moments."""

    async def is_active() -> bool:
        await operator.look()
        return True

    await stage.until(is_active, "our access to Syncaroo", SETTLE_SECONDS)


def _called_in_vain(evidence: Evidence, operator: Operator) -> list[str]:
    """A refresh token works once: its answer may get lost with its reader, on the line, or at Syncaroo's."""
    dropped = sum(bool(one.issued) and "token_drop" in one.fault.split() for one in evidence.records.tokens)
    if operator.calls <= (reasons := evidence.crashes + len(evidence.doubtful) + dropped):
        return []
    return [f"access to Syncaroo was lost {operator.calls} times, for {reasons} reasons"]


async def _lost(scene: Scene, plan: Sequence[Trouble]) -> tuple[str, ...]:
    """What is lost even if it is waited for a while: an API that showed what was is asked again by and by."""
    deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
    while True:
        evidence = await _evidence(scene, plan)
        lost = (*audit(evidence).lost, *unheeded(evidence))
        if not lost or asyncio.get_running_loop().time() > deadline:
            return lost
        await asyncio.sleep(1.0)


async def _is_idle(stage: Stage) -> bool:
    status = await stage.admin.status()
    return (status["targets"]["due"], status["events"]["unpublished"]) == (0, 0)


async def _still(scene: Scene, plan: Sequence[Trouble]) -> Ledger:
    """The ledger as soon as it adds up and stays the same, else as it is after so long."""
    deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
    before, ledger = None, await _ledger(scene, plan)
    while asyncio.get_running_loop().time() < deadline:
        if ledger.adds_up and ledger == before and await _is_idle(scene.stage):
            break
        scene.look_for_the_dead()
        await asyncio.sleep(STILL_SECONDS)
        before, ledger = ledger, await _ledger(scene, plan)
    return ledger


async def _evidence(scene: Scene, plan: Sequence[Trouble]) -> Evidence:
    crashes = sum(trouble.kind.name in ("token killed", "token frozen") for trouble in plan)
    return replace(
        await scene.stage.evidence(), foreign=tuple(scene.foreign.seen), crashes=crashes, doubtful=scene.doubtful
    )


async def _ledger(scene: Scene, plan: Sequence[Trouble]) -> Ledger:
    evidence = await _evidence(scene, plan)
    ledger = audit(evidence)
    return replace(ledger, stale=tuple(sorted({*ledger.stale, *_missing(evidence)})))


def _missing(evidence: Evidence) -> list[str]:
    """Everything that Syncaroo has is of this connection, whether a webhook told of it or not."""
    held = {(one["attributeType"], one["itemId"]) for one in evidence.listings if not one["deleted"]}
    return [f"{url} is missing" for url in evidence.world.items if tuple(url.rsplit("/", 2)[1:]) not in held]


def _odd_letters(ledger: Ledger) -> list[str]:
    return [f"parked for no reason of ours: {one}" for one in ledger.parked if one.split()[1] not in MAY_PARK]


def _bugs(stage: Stage) -> list[str]:
    return [f"{name} has logged {bug}" for name in stage.names for bug in BUGS if bug in stage.stack.logs(name)]
