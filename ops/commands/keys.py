"""`gateway keys`: keys for SECRET_KEYS, and what they are needed for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import typer
from cryptography.fernet import Fernet

from common.crypto import TokenCipher
from common.errors import Permanent
from common.settings import KeySettings, StoreSettings, load
from common.store.engine import Store
from common.store.keys import TOKEN_QUEUE, Inventory, forget_pair, take_inventory
from common.store.schema import check_schema
from ops.commands.admin_options import Yes, confirmed
from ops.terminal import AsJson, out, print_json

group = typer.Typer(no_args_is_help=True, help="Keys for SECRET_KEYS: make one, see which are needed.")
UNREADABLE = "unreadable"
EMPTY = f"once {TOKEN_QUEUE} and its delay queues are empty"
"""What waits there is sealed, too; only the workers look into it."""
T = TypeVar("T")


@group.callback()
def callback() -> None:
    """Keys for SECRET_KEYS."""


@group.command(epilog='Example: [bold]echo "SECRET_KEYS=$(gateway keys new)" >> .env[/bold]')
def new(as_json: AsJson = False) -> None:
    """Print a fresh key. To rotate: append it to SECRET_KEYS everywhere, then move it to the front."""
    key = Fernet.generate_key().decode()
    if as_json:
        print_json({"key": key})
    else:
        print(key)


@group.command(epilog="Example: [bold]gateway keys check[/bold]")
def check(as_json: AsJson = False) -> None:
    """Show which keys what is stored needs, counted as in SECRET_KEYS. Exit code 1 when none of them opens it."""
    (settings,) = load(KeySettings)
    keys = settings.clear()
    found = report(keys, _with_store(take_inventory))
    if as_json:
        print_json(found)
    else:
        for line in lines(found):
            out.print(line)
    raise typer.Exit(1 if found["unreadable"] else 0)


@group.command(epilog="Example: [bold]gateway keys forget --yes[/bold]")
def forget(yes: Yes = False, as_json: AsJson = False) -> None:
    """Give up Syncaroo's tokens when their key is lost for good; somebody has to authorise again at /connect.

    Exit code 1 when a key of SECRET_KEYS opens them.
    """
    (settings,) = load(KeySettings)
    confirmed(yes, as_json)("Give up the access to Syncaroo until somebody authorises again?")
    done = _with_store(partial(forget_pair, cipher=TokenCipher(settings.clear())))
    if as_json:
        print_json({"givenUp": done})
        return
    out.print("given up; authorise again at /connect" if done else "there are no tokens to give up")


def report(keys: Sequence[str], inventory: Inventory) -> dict[str, Any]:
    """What needs which key, by its place in SECRET_KEYS from 1; `grant` is None when there are no tokens. Pure."""
    places = Counter(place_of(keys, sealed) for sealed in inventory.parked)
    grant = None if inventory.grant is None else place_of(keys, inventory.grant) or UNREADABLE
    unreadable = places.pop(None, 0) + (grant == UNREADABLE)
    needed = {*places, grant}
    return {
        "keys": len(keys),
        "grant": grant,
        "parked": {str(place): places[place] for place in sorted(filter(None, places))},
        "unreadable": unreadable,
        "issued": inventory.issued,
        "issuedSince": None if inventory.issued_since is None else inventory.issued_since.isoformat(timespec="seconds"),
        "lastIsNeeded": len(keys) == 1 or len(keys) in needed,
    }


def place_of(keys: Sequence[str], sealed: str) -> int | None:
    """Which key opens it, from 1."""
    for place, key in enumerate(keys, start=1):
        try:
            TokenCipher([key]).open(sealed)
        except Permanent:
            continue
        return place
    return None


def lines(found: dict[str, Any]) -> list[str]:
    """The report for people."""
    parked = ", ".join(f"key {place} ({number})" for place, number in found["parked"].items())
    told = [
        f"SECRET_KEYS has {found['keys']}; key 1 encrypts and signs",
        f"Syncaroo's tokens are sealed with: {_grant(found['grant'])}",
        f"parked messages are sealed with: {parked or 'none are parked'}",
        *([f"no key opens {found['unreadable']} of these"] if found["unreadable"] else []),
    ]
    return [*told, _verdict(found)]


def _grant(place: int | str | None) -> str:
    if place is None:
        return "there are none"
    return "no key of these" if place == UNREADABLE else f"key {place}"


def _verdict(found: dict[str, Any]) -> str:
    last = f"key {found['keys']}"
    if found["lastIsNeeded"]:
        return f"{last} has to stay"
    if not found["issued"]:
        return f"{last} may go {EMPTY}"
    return (
        f"{last} may go when another one has been first since before {found['issuedSince']} "
        f"(then the least recent of {found['issued']} refresh tokens that we issued was signed), and {EMPTY}"
    )


def _with_store(ask: Callable[[Store], Awaitable[T]]) -> T:
    (settings,) = load(StoreSettings)

    async def run() -> T:
        store = Store(settings.database_url.get_secret_value())
        try:
            await check_schema(store)
            return await ask(store)
        finally:
            await store.close()

    return asyncio.run(run())


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    app.add_typer(group, name="keys")
