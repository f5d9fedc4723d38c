"""The end of the play: what must be right by itself, what a resync makes good, and what nobody may have written."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

from ops.demo import story
from ops.demo.stage import Stage
from ops.ledger import Evidence, Ledger, audit, may_be_lost, unheeded
from ops.prove.operator import Operator
from ops.prove.troubles.scene import Scene

SETTLE_SECONDS = 180.0
STILL_SECONDS = 6.0
"""So long nothing more may happen: retries and second looks come within three."""
MAY_PARK = "forbidden_host"
"""What is parked again when it is replayed: a webhook that leads to a stranger."""
MAY_ANSWER = frozenset({None, 401, 503})
"""To a webhook that is not accepted: nothing, as nobody was there; that its token is none; that somebody is away."""
MAY_LOG = frozenset({"grant.needs_authorisation", "connect.refused"})
"""Of all that is an error in a log: what a person has to know whose answer got lost, the token's or the code's."""
_ERROR = re.compile(r'"event":"([^"]+)","level":"(?:error|critical)"')
_UNCAUGHT = re.compile(r"^Traceback|^.*never (?:retrieved|awaited).*$", re.MULTILINE)


async def concluded(scene: Scene, operator: Operator) -> Ledger:
    """The ledger, once everything is mended and nothing moves any more.

    Raises:
        StoryFailed: it goes on moving, what is new is not told, or our access to Syncaroo cannot be had again.
    """
    stage = scene.stage
    await stage.sandbox.clear_faults()
    with stage.tell.step("everything is mended, and works off what is left"):
        await _works_off(scene, operator)
    await story.change_price(stage)
    with stage.tell.step("what accepted webhooks told is in the store") as step:
        lost = await _lost(scene)
        step.note("all of it is" if not lost else f"{len(lost)} ARE NOT")
    with stage.tell.step("dead letters are replayed") as step:
        step.note(f"{await _replay(scene)} of them")
    with stage.tell.step("a resync asks for what was lost on the way to us; everything is settled"):
        await stage.admin.resync(story.CONNECTION)
        ledger = await _still(scene)
    violations = (*ledger.violations, *await _complaints(scene, operator, ledger))
    return replace(ledger, lost=tuple(dict.fromkeys((*lost, *ledger.lost))), violations=violations)


async def _works_off(scene: Scene, operator: Operator) -> None:
    scene.look_for_the_dead()
    await scene.stage.stack.wait_ready()
    await scene.stage.sandbox.quiet()

    async def is_authorised() -> bool:
        await operator.look()
        return True

    await scene.stage.until(is_authorised, "our access to Syncaroo", SETTLE_SECONDS)
    await scene.stage.until(lambda: _is_idle(scene.stage), "nothing is due any more", SETTLE_SECONDS)


async def _is_idle(stage: Stage) -> bool:
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


async def _replay(scene: Scene) -> int:
    """Now that nobody lies any more; how many there were."""
    letters = await scene.stage.admin.dead_letters()
    for letter in letters:
        await scene.stage.admin.replay(letter["id"])
    await scene.stage.until(lambda: _is_idle(scene.stage), "nothing is due any more", SETTLE_SECONDS)
    return len(letters)


async def _still(scene: Scene) -> Ledger:
    """The ledger as soon as it adds up and stays the same, else as it is after so long."""
    deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
    before, ledger = None, await _ledger(scene)
    while asyncio.get_running_loop().time() < deadline:
        if ledger.adds_up and ledger == before and await _is_idle(scene.stage):
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


# --- what the ledger does not know of


async def _complaints(scene: Scene, operator: Operator, ledger: Ledger) -> list[str]:
    evidence = await _evidence(scene)
    return [
        *_odd_answers(evidence),
        *(f"parked again: {one}" for one in ledger.parked if one.split()[1] != MAY_PARK),
        *_odd_calls(evidence, operator),
        *(f"{name} has logged {bug}" for name in scene.stage.names for bug in _bugs(scene.stage.stack.logs(name))),
    ]


def _odd_answers(evidence: Evidence) -> list[str]:
    refused = [one for one in evidence.records.webhooks if one.status is None or not 200 <= one.status < 300]
    return [f"#{one.order_sent} was answered {one.status}" for one in refused if one.status not in MAY_ANSWER]


def _odd_calls(evidence: Evidence, operator: Operator) -> list[str]:
    """A refresh token works once: whoever could not read the answer has to be let in by a person, and nobody else."""
    told = {one["id"] for one in evidence.events if one["type"] == "grant.changed" and _needs(one["data"])}
    found = [] if len(told) == operator.calls else [f"{operator.calls} losses of access, {len(told)} told"]
    if operator.calls > (reasons := may_be_lost(evidence)):
        found.append(f"access to Syncaroo was lost {operator.calls} times, for {reasons} answers that did not come")
    return found


def _needs(data: story.Data) -> bool:
    return bool(data["state"] == "needs_authorisation")


def _bugs(log: str) -> set[str]:
    return {*_ERROR.findall(log), *_UNCAUGHT.findall(log)} - MAY_LOG
