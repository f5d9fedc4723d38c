"""`gateway demo` and `gateway up`: find a broker, set the stage, play; end all that was started, also on Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from ops.broker import Broker, NoBroker, find
from ops.broker.broker import without_password
from ops.demo import story
from ops.demo.stage import QUICK, Stage, StoryFailed, fresh, staged
from ops.demo.subscriber import Event
from ops.demo.teller import Teller
from ops.ledger import Ledger
from sandbox.driver import DriverError

T = TypeVar("T")

LIFE_SECONDS = 10.0


def demo(work: Path, database_url: str | None = None) -> int:
    """Play the whole story → the exit code: 0 when its ledger adds up, else 1.

    Raises:
        StoryFailed: it did not come to its end.
    """
    tell = Teller()
    with _broker(tell) as broker:
        ledger = run(_demo(tell, broker, fresh(work), database_url))
    return conclude(tell, ledger, work)


def up(work: Path, database_url: str | None = None) -> int:
    """Set the stage, connect user and operator, and go on until Ctrl-C → 0.

    Raises:
        StoryFailed: the stage could not be set, or a process ended.
    """
    tell = Teller()
    with _broker(tell) as broker, contextlib.suppress(KeyboardInterrupt):
        run(_up(tell, broker, fresh(work), database_url))
    tell.line(f"Everything is ended; the logs stay in {work}/logs.")
    return 0


def conclude(tell: Teller, ledger: Ledger, work: Path) -> int:
    """Print the ledger: what does not add up, what may be, then its lines → the exit code."""
    tell.heading("The ledger adds up" if ledger.adds_up else f"THE LEDGER DOES NOT ADD UP (logs: {work}/logs)")
    for told in (*ledger.faults(), *ledger.allowed()):
        tell.line(f"  {told}")
    for line in ledger.lines():
        print(line, flush=True)
    return ledger.exit_code


async def _demo(tell: Teller, broker: Broker, work: Path, database_url: str | None) -> Ledger:
    async with staged(tell, broker, work, database_url=database_url) as stage:
        await _connect(stage)
        tell.heading("Syncaroo's world changes")
        await story.first_burst(stage)
        await story.change_price(stage)
        await story.add_room(stage)
        await story.remove_room(stage)
        await story.lose_webhook(stage)
        ledger = await story.kill_worker(stage)
        with tell.step("everything is ended"):
            await stage.stack.stop()
        return ledger


async def _up(tell: Teller, broker: Broker, work: Path, database_url: str | None) -> None:
    ports = _free_or_none(8080, 8090)
    shown = [False]

    def on_event(event: Event) -> None:
        if shown[0]:
            tell.line(_event_line(event))

    async with staged(tell, broker, work, database_url=database_url, ports=ports, on_event=on_event) as stage:
        password = await _connect(stage)
        await story.first_burst(stage)
        await stage.sandbox.life(LIFE_SECONDS)
        _addresses(stage, password)
        shown[0] = True
        while True:
            stage.complain_of_the_dead()
            await asyncio.sleep(1)


async def _connect(stage: Stage) -> str:
    """Connect user and operator → the user's password."""
    settings = ", ".join(f"{name}={value}" for name, value in QUICK.items())
    stage.tell.line(f"  quicker than the defaults: {settings}")
    story.show_portal(stage)
    stage.tell.heading("Connecting")
    password = await story.create_user(stage)
    await story.connect_user(stage, password)
    await story.connect_admin(stage)
    return password


def _addresses(stage: Stage, password: str) -> None:
    site, token = stage.stack.url, stage.stack.environment["ADMIN_TOKEN"]
    broker = without_password(stage.stack.environment["AMQP_URL"])
    stage.tell.heading(f"Running until Ctrl-C; something changes every {LIFE_SECONDS:g} s")
    for name, value in (
        ("Syncaroo", f"{stage.sandbox.base_url}/   (change prices and rooms, add an integration)"),
        ("user", f"{story.LOGIN}, password {password}   (of this run only)"),
        ("account", f"{site}/account   (the user's connections)"),
        ("connect", f"{site}/connect   (the password is the admin token)"),
        ("admin token", f"{token}   (of this run only)"),
        ("listings", f"curl -H 'Authorization: Bearer {token}' {site}/admin/v1/listings"),
        ("status", f"ADMIN_TOKEN={token} .venv/bin/gateway status --url {site}"),
        ("broker", f"{broker}   (bind a queue of your own to syncaroo.events)"),
        ("logs", str(stage.logs)),
    ):
        stage.tell.line(f"  {name:<12} {value}")
    stage.tell.heading("Events")


def _event_line(event: Event) -> str:
    data = event["data"]
    if event["type"] != "listing.changed":
        return f"  {event['type']} {event['subject']} {data}"
    told = [data["change"], story.difference(data), f"version {data['version']}"]
    return f"  {event['type']} {event['subject']} {', '.join(filter(None, told))}"


def _broker(tell: Teller) -> Broker:
    tell.heading("Setting the stage")
    try:
        return find(lambda line: tell.line(f"  {line}"), name="gateway-demo")
    except NoBroker as error:
        raise StoryFailed(str(error)) from error


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run it; SIGTERM ends it as Ctrl-C does. What the parts answer instead of going on is told in words."""
    try:
        return asyncio.run(_ending_on_sigterm(work))
    except (DriverError, aiohttp.ClientError) as error:
        raise StoryFailed(f"The story stopped: {type(error).__name__}: {error}") from error


async def _ending_on_sigterm(work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _free_or_none(*ports: int) -> tuple[int, int] | None:
    """The usual ports, when both are free; else None: any."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return None
    return ports[0], ports[1]
