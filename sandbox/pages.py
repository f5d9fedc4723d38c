"""The front page for a person: connections, buttons that change the world, the last things that passed."""

from collections import Counter

from aiohttp import web

from sandbox.control import OPERATIONS
from sandbox.operations import ChangeOrder
from sandbox.platform import PLATFORM
from sandbox.rendering import page
from sandbox.state import SANDBOX
from sandbox.world import UnknownItemError

ACTIONS = {"price": "Change a price", "room": "Add a room", "remove": "Remove a room", "rename": "Rename a location"}
SHOWN = 15


def routes() -> list[web.RouteDef]:
    return [web.get("/", front), web.post("/actions/connect", connect), web.post("/actions/{kind}", act)]


async def front(request: web.Request) -> web.Response:
    sandbox = request.app[SANDBOX]
    return page(
        "front.html",
        config=sandbox.config,
        counts=Counter(node.noun for _, node in sandbox.world.items()),
        connections=list(sandbox.connections.values()),
        next_connection=max(sandbox.connections, default=98) + 1,
        actions=ACTIONS,
        webhooks=sandbox.records.webhooks[: -SHOWN - 1 : -1],
        calls=sandbox.records.calls[: -SHOWN - 1 : -1],
        violations=sandbox.records.violations[: -SHOWN - 1 : -1],
    )


async def connect(request: web.Request) -> web.Response:
    """To the platform, where the user consents."""
    number = str((await request.post()).get("connectionId", ""))
    if not number.isdecimal() or len(number) > 18:
        return page("message.html", 400, title="No connection", text="The connection is a whole number.")
    raise web.HTTPSeeOther(request.app[PLATFORM].authorize_url(int(number)))


async def act(request: web.Request) -> web.Response:
    """One change, then back to the front page."""
    if request.match_info["kind"] not in ACTIONS:
        raise web.HTTPNotFound
    try:
        await request.app[OPERATIONS].change(ChangeOrder(kind=request.match_info["kind"]))
    except UnknownItemError as error:
        return page("message.html", 409, title="Nothing changed", text=str(error))
    raise web.HTTPSeeOther("/")
