"""`gateway prove`: set the stage on a broker of its own, play the plan under load, mend everything, add up."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import create_async_engine

from ops.broker import NotHere, PrivateNode
from ops.broker.install import install
from ops.broker.node import scripts
from ops.demo import story
from ops.demo.run import conclude, run
from ops.demo.stage import Stage, StandIn, StoryFailed, fresh, staged
from ops.demo.teller import Teller
from ops.ledger import Ledger
from ops.prove import ahead
from ops.prove.clock import Clock, HostClock, ServerClock
from ops.prove.concluding import concluded
from ops.prove.foreign import Foreign
from ops.prove.load import Load
from ops.prove.operator import Operator
from ops.prove.plan import Kind, Trouble, planned
from ops.prove.troubles import happenings
from ops.prove.troubles.scene import Happen, Scene
from ops.prove.wires import Wires, wired
from ops.stack import WORKERS

TWICE = WORKERS
"""One of each goes on while the other is in trouble."""
SETTINGS = {"DELETE_BRAKE": "1", "BURST_QUIET": "0"}
"""No brake: how many are deleted is the dice's."""
THROUGH = ahead.__name__
"""By what processes are started."""
TOKEN_SECONDS = 30
"""So long Syncaroo's access tokens last here: there is always one about to be renewed."""


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
    clocks = await _clocks(work, database_url)
    settings = {name: value for clock in clocks.values() for name, value in clock.settings.items()}
    async with (
        Foreign() as foreign,
        wired(node.url, database_url) as wires,
        staged(
            tell,
            node.broker(),
            work,
            ports=wires.ports,
            breaks=True,
            more={**SETTINGS, **settings, **wires.settings},
            stand_in=StandIn(_flags(seed, wires), wires.sandbox_url),
            through=THROUGH,
        ) as stage,
    ):
        await asyncio.to_thread(node.settle)
        await _onboard(stage)
        is_server = database_url.startswith("postgresql")
        kinds = happenings(postgresql=is_server, wires=tuple(wires.of), clocks_to_put=tuple(clocks))
        plan = planned(list(kinds), seed, seconds)
        scene = Scene(stage, node, database_url, foreign, wires, clocks)
        async with Operator(stage).watching():
            await _play(scene, kinds, plan, Load(stage.sandbox, seed), seconds)
            return await concluded(scene)


async def _onboard(stage: Stage) -> None:
    for role in TWICE:
        stage.names += await stage.stack.start(role)
    await story.connect_user(stage, await story.create_user(stage))
    await story.connect_admin(stage)
    await story.first_burst(stage)


def _flags(seed: int, wires: Wires) -> Sequence[str]:
    world = ("--locations=5", "--resources=6", "--rates=4", "--page-size=4")
    where = (f"--port={wires.ports[1]}", f"--base-url={wires.stand_in_url}")
    return (f"--seed={seed}", f"--token-seconds={TOKEN_SECONDS}", *world, *where)


async def _clocks(work: Path, database_url: str) -> dict[str, Clock]:
    """Those that can be put, by their names."""
    clocks: dict[str, Clock] = {"processes'": HostClock(work / "ahead")}
    if database_url.startswith("postgresql"):
        clocks["database's"] = await ServerClock.in_database(database_url)
    return clocks


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
        async with AsyncExitStack() as ending:
            for place in sorted(trouble.kind.places):
                await ending.enter_async_context(places[place])
            struck = await ending.enter_async_context(kinds[trouble.kind](scene))
            await asyncio.sleep(trouble.seconds)
            vain = ": IN VAIN" if struck is False or (callable(struck) and not await struck()) else ""
            scene.stage.tell.line(f"  {trouble.at:6.1f} s  {trouble.kind.name}, for {trouble.seconds:.1f} s{vain}")

    with scene.stage.tell.step(f"{len(plan)} troubles under load") as step:
        try:
            async with asyncio.TaskGroup() as group:
                changing = group.create_task(load.run())
                await asyncio.gather(*(group.create_task(happen(one)) for one in plan))
                await asyncio.sleep(begun + seconds - asyncio.get_running_loop().time())
                changing.cancel()
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        step.note(f"{load.changes} changes")
