"""`gateway prove`: set the stage on a broker of its own, play the plan under load, mend everything, add up."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from pathlib import Path

from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import create_async_engine

from ops.broker import NotHere, PrivateNode
from ops.broker.install import install
from ops.broker.node import scripts
from ops.demo import story
from ops.demo.run import conclude, run
from ops.demo.stage import StoryFailed, fresh, staged
from ops.demo.teller import Teller
from ops.ledger import Ledger
from ops.prove.concluding import concluded
from ops.prove.foreign import Foreign
from ops.prove.load import Load
from ops.prove.plan import Kind, Trouble, counts, planned
from ops.prove.troubles import Happen, Scene, happenings

TWICE = ("fetch", "reconcile")
"""One of each goes on while the other is in trouble."""
MOST_HELD = "1"
"""No brake: how many are deleted is the dice's."""


def prove(work: Path, *, minutes: float, seed: int, database_url: str | None = None) -> int:
    """Play it → the exit code: 0 when its ledger adds up, else 1.

    Raises:
        StoryFailed: it did not come to its end; the database is not empty; no RabbitMQ of our own can be had.
    """
    tell = Teller()
    if database_url is not None:
        asyncio.run(_must_be_empty(database_url))
    work = fresh(work)
    url = database_url or f"sqlite+aiosqlite:///{work}/gateway.db"
    tell.heading(f"Everything fails for {minutes:g} minutes, in an order that seed {seed} gives")
    _have_rabbitmq(tell)
    with PrivateNode(plugins=("rabbitmq_management",)) as node:
        ledger = run(_prove(tell, node, work, url, minutes * 60, seed))
    return conclude(tell, ledger, work)


def _have_rabbitmq(tell: Teller) -> None:
    try:
        scripts()
    except NotHere:
        try:
            install("rabbitmq-server", os.environ, tell.line)
        except NotHere as error:
            raise StoryFailed(f"A RabbitMQ that may be broken is needed, and {error}") from error


async def _prove(tell: Teller, node: PrivateNode, work: Path, database_url: str, seconds: float, seed: int) -> Ledger:
    async with (
        Foreign() as foreign,
        staged(
            tell,
            node.broker(),
            work,
            database_url=database_url,
            breaks=True,
            more={"DELETE_BRAKE": MOST_HELD, "BURST_QUIET": "0"},
            sandbox=(f"--seed={seed}", "--locations=5", "--resources=6", "--rates=4", "--page-size=4"),
        ) as stage,
    ):
        await asyncio.to_thread(node.settle)
        for role in TWICE:
            stage.names += await stage.stack.start(role)
        await story.connect_user(stage, await story.create_user(stage))
        await story.connect_admin(stage)
        await story.first_burst(stage)
        kinds = happenings(postgresql=database_url.startswith("postgresql"))
        plan = planned(list(kinds), seed, seconds)
        scene = Scene(stage, node, database_url, foreign)
        await _play(scene, kinds, plan, Load(stage.sandbox, seed), seconds)
        return await concluded(scene, plan)


async def _must_be_empty(database_url: str) -> None:
    """Raises StoryFailed: whoever proves something writes and breaks what they like, in a store of their own."""
    engine = create_async_engine(database_url)
    try:
        async with engine.connect() as connection:
            tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    finally:
        await engine.dispose()
    if tables:
        raise StoryFailed("This database is not empty; `gateway prove` breaks things in an empty one alone.")


async def _play(scene: Scene, kinds: dict[Kind, Happen], plan: list[Trouble], load: Load, seconds: float) -> None:
    begun = asyncio.get_running_loop().time()
    places = defaultdict[str, asyncio.Lock](asyncio.Lock)  # to begin and to mend takes time that no plan knows of

    async def happen(trouble: Trouble) -> None:
        await asyncio.sleep(begun + trouble.at - asyncio.get_running_loop().time())
        async with places[trouble.kind.place]:
            scene.stage.tell.line(f"  {trouble.at:6.1f} s  {trouble.kind.name}, for {trouble.seconds:.1f} s")
            async with kinds[trouble.kind](scene):
                await asyncio.sleep(trouble.seconds)

    with scene.stage.tell.step(f"{len(plan)} troubles under load") as step:
        try:
            async with asyncio.TaskGroup() as group:
                loading = group.create_task(load.run())
                await asyncio.gather(*(group.create_task(happen(one)) for one in plan))
                await asyncio.sleep(begun + seconds - asyncio.get_running_loop().time())
                loading.cancel()
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        step.note(f"{load.changes} changes; " + ", ".join(f"{name} {count}" for name, count in counts(plan).items()))
