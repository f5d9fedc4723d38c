"""The end of the play: what must be right by itself, what a resync makes good, and what nobody may have written."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

from ops.demo import story
from ops.demo.stage import Stage
from ops.ledger import Evidence, Ledger, audit, unheeded
from ops.prove import complaints
from ops.prove.complaints import LOST, REFUSED
from ops.prove.troubles.scene import Scene

MEND_SECONDS = 180.0
"""What must happen by itself may take so long."""
SETTLE_SECONDS = 180.0
"""So long what is wrong may come right."""
STILL_SECONDS = 6.0
"""So long nothing more may happen: retries and second looks come within three."""
MAY_PARK = "forbidden_host"
"""What is parked again when it is replayed: a webhook that leads to a stranger."""
MAY_PARK_MEANWHILE = frozenset({MAY_PARK, "redirected", "not_json", "bad_shape", "page_refused", "not_found"})
"""What Syncaroo's lies lead to; `not_found`: what is new is not shown for longer than all tries."""
MAY_LOG = frozenset({
    *("grant.needs_authorisation", REFUSED),  # an answer that held tokens got lost
    "connect.code_not_published",  # the broker was away when a person authorised
    *("grant.pair_not_stored", "grant.pair_not_published", "grant.verdict_not_stored"),  # so was the store, or both
})  # fmt: skip
"""Of all that is an error in a log."""


async def concluded(scene: Scene) -> Ledger:
    """The ledger, once everything is mended and nothing moves any more; a person is still there to be called.

    Raises:
        StoryFailed: it goes on moving, what is new is not told, or our access to Syncaroo cannot be had again.
    """
    stage = scene.stage
    await stage.sandbox.clear_faults()
    with stage.tell.step("everything is mended, and works off what is left") as step:
        await _works_off(scene)
        step.note(f"a person had to let us in again {complaints.states(stage.subscriber.events).count(LOST)} times")
    since = await scene.number()
    await story.change_price(stage)
    with stage.tell.step("what accepted webhooks told is in the store") as step:
        lost = await _lost(scene)
        step.note("all of it is" if not lost else f"{len(lost)} ARE NOT")
    with stage.tell.step("dead letters are replayed") as step:
        letters, parked = await _replay(scene)
        step.note(letters)
    with stage.tell.step("a resync asks for what was lost on the way to us; everything is settled"):
        await stage.admin.resync(story.CONNECTION)
        ledger = await _still(scene)
    violations = (*ledger.violations, *parked, *await _complaints(scene, ledger, since))
    return replace(ledger, lost=tuple(dict.fromkeys((*lost, *ledger.lost))), violations=violations)


async def _works_off(scene: Scene) -> None:
    scene.look_for_the_dead()
    await scene.stage.stack.wait_ready()
    await scene.stage.sandbox.quiet()
    since = await scene.number()
    await scene.stage.sandbox.expire_access()
    await scene.stage.until(lambda: _has_access(scene, since), "new access to Syncaroo", MEND_SECONDS)
    await scene.stage.until(lambda: is_idle(scene.stage), "nothing is due any more", MEND_SECONDS)


async def _has_access(scene: Scene, since: int) -> bool:
    """Whoever has lost it on the way to the end knows by now, and has been let in again."""
    issued = any(one.outcome == "issued" for one in (await scene.stage.sandbox.records(after=since)).tokens)
    return issued and bool((await scene.stage.admin.status())["grant"]["state"] == "active")


async def is_idle(stage: Stage) -> bool:
    """All that was wanted is answered, and all that changed is told."""
    status = await stage.admin.status()
    return (status["targets"]["due"], status["events"]["unpublished"]) == (0, 0)


async def _lost(scene: Scene) -> tuple[str, ...]:
    """What is lost even if it is waited for a while: an API that showed what was is asked again by and by."""
    deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
    while True:
        evidence = await _evidence(scene)
        lost = (*audit(evidence).lost, *unheeded(evidence))
        if not lost or asyncio.get_running_loop().time() > deadline:
            return lost
        await asyncio.sleep(1.0)


async def _replay(scene: Scene) -> tuple[str, list[str]]:
    """Now that nobody lies any more; how many there were, by reason, and those that no trouble is a reason for."""
    letters = await scene.stage.admin.dead_letters()
    reasons = Counter(str(letter["reason"]) for letter in letters)
    for letter in letters:
        await scene.stage.admin.replay(letter["id"])
    await scene.stage.until(lambda: is_idle(scene.stage), "nothing is due any more", MEND_SECONDS)
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return told or "there are none", [f"parked meanwhile: {one}" for one in reasons if one not in MAY_PARK_MEANWHILE]


async def _still(scene: Scene) -> Ledger:
    """The ledger as soon as it adds up and stays the same, else as it is after so long."""
    deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
    before, ledger = None, await _ledger(scene)
    while asyncio.get_running_loop().time() < deadline:
        if ledger.adds_up and ledger == before and await is_idle(scene.stage):
            break
        scene.look_for_the_dead()
        await asyncio.sleep(STILL_SECONDS)
        before, ledger = ledger, await _ledger(scene)
    return ledger


async def _ledger(scene: Scene) -> Ledger:
    """Of what has been replayed, targets know no more which webhook was the last."""
    evidence = replace(await _evidence(scene), targets=())
    ledger = audit(evidence)
    return replace(ledger, stale=tuple(sorted({*ledger.stale, *_missing(evidence)})))


async def _evidence(scene: Scene) -> Evidence:
    evidence = await scene.stage.evidence()
    return replace(evidence, foreign=tuple(scene.foreign.seen), crashes=scene.crashes, doubtful=scene.doubtful)


def _missing(evidence: Evidence) -> list[str]:
    """Everything that Syncaroo has is of this connection, whether a webhook told of it or not."""
    held = {(one["attributeType"], one["itemId"]) for one in evidence.listings if not one["deleted"]}
    return [f"{url} is missing" for url in evidence.world.items if tuple(url.rsplit("/", 2)[1:]) not in held]


async def _complaints(scene: Scene, ledger: Ledger, since: int) -> list[str]:
    """What the ledger does not know of; from number `since` on nothing is wrong any more."""
    evidence = await _evidence(scene)
    errors = {name: list(complaints.errors(scene.stage.stack.logs(name))) for name in scene.stage.names}
    refused = sum(found.count(REFUSED) for found in errors.values())
    return [
        *complaints.odd_answers(evidence.records.webhooks, scene.unheard, scene.unfit, since),
        *complaints.odd_losses(evidence, refused),
        *(f"parked again: {one}" for one in ledger.parked if one.split()[1] != MAY_PARK),
        *(f"{name} has logged {one}" for name, found in errors.items() for one in {*found} - MAY_LOG),
    ]
