"""The demo's decisions: its exit code, what it prints, what its person at the browser sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ops.demo.browser import Browser
from ops.demo.run import conclude
from ops.demo.story import difference, platform_locations
from ops.demo.teller import Teller
from ops.ledger import Ledger
from sandbox.truth import Truth


def ledger(**members: Any) -> Ledger:
    lists = (
        "duplicates",
        "parked",
        "lost",
        "gaps",
        "clashes",
        "phantoms",
        "replay_differs",
        "stale",
        "overlapping",
        "presented_again",
    )
    numbers = {"webhooks_accepted": 5, "webhooks_refused": 0, "api_calls": 4, "events": 3}
    return Ledger(**{**numbers, **dict.fromkeys((*lists, "violations"), ()), **members})


@pytest.mark.parametrize(("faults", "code"), [({}, 0), ({"duplicates": ("event-1",)}, 0), ({"lost": ("#7 room",)}, 1)])
def test_the_exit_code_says_whether_the_ledger_adds_up(
    faults: dict[str, Any], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert conclude(Teller(), ledger(**faults), Path("work")) == code

    printed = capsys.readouterr().out.splitlines()
    assert printed[-len(ledger().lines()) :] == ledger(**faults).lines(), "the last lines are the ledger's"
    assert ("  lost: #7 room" in printed) == ("lost" in faults)


def test_a_difference_in_words() -> None:
    data = {"changedFields": ["price", "unit"], "previous": {"price": 35}, "current": {"price": "40.50", "unit": "day"}}

    assert difference(data) == "price 35 → 40.50, unit None → day"


def test_the_platform_lists_the_same_workspaces_under_its_own_ids() -> None:
    at = "http://syncaroo/v1/locations"
    items: dict[str, dict[str, Any]] = {
        f"{at}/1": {"ID": "1", "Name": "London"},
        f"{at}/1/resources/2": {"ID": 2, "name": "Ada", "type": "office"},
        f"{at}/1/resources/2/rates/3": {"ID": 3, "price": 1},
    }

    found = platform_locations(Truth(order=0, items=items, collections={}, gone=[], expected={}))

    assert [one["status"] for one in found.values()] == ["active", "deleted"]
    location = next(iter(found.values()))
    assert found[location["ID"]] is location
    assert location["name"] == "London"
    assert [room["name"] for room in location["resources"]] == ["Ada"]


PAGE = """<h1>Sign <b>in</b></h1>
<form method="post" action="/in?to=x"><input type="hidden" name="csrf" value="a&amp;b"><input name="login">
<input type="password" name="secret"><button name="decision" value="allow">Allow</button></form>
<form action="/other"><input name="decoy"></form>"""


async def test_the_browser_fills_in_the_first_form_and_keeps_cookies() -> None:
    posted: list[Any] = []

    async def show(request: web.Request) -> web.Response:
        answer = web.Response(text=PAGE, content_type="text/html")
        answer.set_cookie("session", "1")
        return answer

    async def take(request: web.Request) -> web.Response:
        posted.append((dict(request.query), dict(await request.post()), dict(request.cookies)))
        raise web.HTTPSeeOther("/done")

    async def done(request: web.Request) -> web.Response:
        return web.Response(text="<h1>Done</h1>", content_type="text/html")

    app = web.Application()
    app.add_routes([web.get("/", show), web.post("/in", take), web.get("/done", done)])
    async with TestServer(app) as server, Browser() as browser:
        page = await browser.open(str(server.make_url("/")))
        after = await browser.submit(page, text="ada", password="p", button=("decision", "allow"))
        with pytest.raises(ValueError, match="no form on 'Done'"):
            await browser.submit(after)

    assert page.heading == "Sign in"
    assert (after.heading, after.status, after.form) == ("Done", 200, None)
    typed = {"csrf": "a&b", "login": "ada", "secret": "p", "decision": "allow"}
    assert posted == [({"to": "x"}, typed, {"session": "1"})]
