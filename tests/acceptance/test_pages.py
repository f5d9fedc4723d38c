"""The pages in a real browser, over real processes: people's ways through them, and what is wrong with none of them."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.acceptance.world import PASSWORD, World, webhook_body, world
from tests.fixtures.chromium import SECONDS, person
from tests.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

expect.set_options(timeout=SECONDS * 1000)

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
LOOKS = [(scheme, width) for scheme in SCHEMES for width in (400, 1440)]
SCREENSHOTS = os.environ.get("SCREENSHOTS")
"""A folder for a picture of every page, in every look."""

AXE = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
    .filter(({impact}) => impact === "serious" || impact === "critical")
    .map(({id, help, nodes}) => `${id}: ${help}: ${nodes.map((node) => node.html).join(" ")}`)"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(directory: Path, amqp_url: str, sqlite_url: str) -> AsyncIterator[World]:
    """An ingress and the stand-in; whoever needs a token worker starts it."""
    async with world(directory, amqp_url=amqp_url, database_url=sqlite_url, roles=("ingress",)) as made:
        yield made


@asynccontextmanager
async def token_worker(gateway: World) -> AsyncIterator[None]:
    [name] = await gateway.stack.start("token")
    try:
        yield
    finally:
        assert await gateway.stack.terminate(name) == 0


def origins(gateway: World) -> tuple[str, str]:
    return gateway.stack.url, gateway.sandbox.base_url


async def user_of(gateway: World, connection_id: int, locations: int = 2) -> str:
    """A user of the connection's own, with listings: the login."""
    user = f"user-{connection_id}"
    rooms = [{"ID": f"r{n}", "name": f"Meeting room {n}", "status": "active", "type": "meeting-room"} for n in range(3)]
    odd = {"0": {"ID": "0", "name": "مساحة عمل" + "wide" * 50 + "<b>&", "status": "private"}}
    places = odd | {
        str(n): {"ID": str(n), "name": f"Demo Workspace {n}, London", "status": "active", "resources": rooms}
        for n in range(1, locations + 1)
    }
    await gateway.admin.put_user(user, user, PASSWORD)
    await gateway.admin.put_locations(user, places)
    return user


async def sign_in(page: Page, user: str, password: str = PASSWORD) -> None:
    await page.get_by_label("Login").fill(user)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in").click()


async def headline(page: Page, text: str) -> None:
    await expect(page.get_by_role("heading", level=1)).to_have_text(text)


async def state_of(gateway: World, connection_id: int) -> str:
    return (await gateway.sandbox.connections())[connection_id].state


# --- ways through ---------------------------------------------------------------------------------------------------


async def test_a_user_signs_in_denies_and_on_second_thought_allows(gateway: World, chromium: Browser) -> None:
    user = await user_of(gateway, 201)
    async with person(chromium, *origins(gateway)) as (page, _):
        await page.goto(await gateway.sandbox.connect(201))
        await sign_in(page, user, "wrong")
        problem = page.get_by_role("alert")
        await expect(problem).to_have_text("Login or password is wrong.")
        for name in ("Login", "Password"):
            await expect(page.get_by_label(name)).to_have_accessible_description("Login or password is wrong.")
        await sign_in(page, user)

        await headline(page, "Connect your listings to Syncaroo?")
        await expect(page.get_by_text(f"You are signed in as {user}.")).to_be_visible()
        await expect(page.get_by_text("Demo Workspace 2, London")).to_be_visible()
        await page.get_by_role("button", name="Deny").click()
        await headline(page, "Not connected")
        assert await state_of(gateway, 201) == "denied"

        await page.goto(await gateway.sandbox.connect(201))
        await page.get_by_role("button", name="Allow").click()
        await headline(page, "Connection 201 is confirmed")
        assert await state_of(gateway, 201) == "confirmed"


async def test_the_keyboard_is_enough(gateway: World, chromium: Browser) -> None:
    user = await user_of(gateway, 202)
    async with person(chromium, *origins(gateway)) as (page, _):
        await page.goto(await gateway.sandbox.connect(202))
        await expect(page.get_by_label("Login")).to_be_focused()
        await page.keyboard.type(user)
        await page.keyboard.press("Tab")
        await page.keyboard.type(PASSWORD)
        await page.keyboard.press("Enter")
        await headline(page, "Connect your listings to Syncaroo?")
        allow = page.get_by_role("button", name="Allow")
        for _ in range(6):
            await page.keyboard.press("Tab")
            if await allow.evaluate("(button) => button === document.activeElement"):
                break
        await expect(allow).to_be_focused()
        assert await allow.evaluate("(button) => getComputedStyle(button).outlineStyle") == "solid"
        await page.keyboard.press("Enter")
        await headline(page, "Connection 202 is confirmed")


async def to_confirm(gateway: World, page: Page) -> None:
    """An operator's way to /confirm."""
    await page.goto(f"{gateway.stack.url}/connect")
    await page.get_by_label("Admin token").fill(gateway.stack.environment["ADMIN_TOKEN"])
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_role("button", name="Allow").click()
    await headline(page, "Connecting to Syncaroo")


async def test_the_confirm_page_follows_the_outcome_without_a_reload(gateway: World, chromium: Browser) -> None:
    async with person(chromium, *origins(gateway)) as (page, _):
        await to_confirm(gateway, page)
        await page.evaluate("document.body.dataset.mark = 'the same document'")
        async with token_worker(gateway):
            await headline(page, "Connected to Syncaroo")
        await expect(page.get_by_role("status")).to_contain_text("We have access to Syncaroo's API.")
        await expect(page).to_have_title(re.compile(f"^Connected to Syncaroo .* {urlsplit(gateway.stack.url).netloc}$"))
        assert await page.evaluate("document.body.dataset.mark") == "the same document"
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.reload()
        await headline(page, "Connected to Syncaroo")
        assert [url for url in asked if "/confirm/status" in url or "follow.js" in url] == [], "there is an outcome"


async def test_without_script_the_confirm_page_reloads_itself(gateway: World, chromium: Browser) -> None:
    async with person(chromium, *origins(gateway), script=False) as (page, _):
        await to_confirm(gateway, page)
        async with token_worker(gateway):
            await headline(page, "Connected to Syncaroo")


async def test_an_ingress_that_is_away_for_a_moment_is_asked_again(gateway: World, chromium: Browser) -> None:
    async with person(chromium, *origins(gateway)) as (page, watch):
        await to_confirm(gateway, page)
        await page.route("**/confirm/status?*", lambda route: route.fulfill(status=503))
        await until(lambda: len(watch.complaints) > 1, SECONDS, what="two answers in vain")
        await page.unroute("**/confirm/status?*")
        async with token_worker(gateway):
            await headline(page, "Connected to Syncaroo")
        watch.complaints.clear()  # the two that were ordered


async def test_a_user_revokes_a_connection_and_signs_out(gateway: World, chromium: Browser) -> None:
    """T-OP-REVOKE: without script all the same; Syncaroo's webhooks are refused within seconds."""
    user = await user_of(gateway, 203)
    await gateway.connect(203, has_listings=False)
    async with person(chromium, *origins(gateway), script=False) as (page, _):
        await page.goto(f"{gateway.stack.url}/account")
        await sign_in(page, user)
        await headline(page, "Your connections to Syncaroo")
        await expect(page.get_by_role("heading", name="Connection 203")).to_be_visible()
        await page.get_by_role("button", name="Revoke connection 203").click()
        await headline(page, "Revoke connection 203?")
        await page.get_by_role("link", name="Keep it").click()
        await page.get_by_role("button", name="Revoke connection 203").click()
        assert (await gateway.admin.connection(203))["state"] == "confirmed"
        await page.get_by_role("button", name="Revoke").click()
        await expect(page.get_by_role("status")).to_have_text("Connection 203 is revoked.")
        assert (await gateway.admin.connection(203))["state"] == "revoked"
        await until(lambda: refused(gateway, 203), SECONDS, what="Syncaroo's token is refused", pace=0.5)
        await page.get_by_role("button", name="Sign out").click()
        await headline(page, "You are signed out")
        await page.get_by_role("link", name="Sign in again").click()
        await expect(page.get_by_label("Password")).to_be_visible()


async def refused(gateway: World, connection_id: int) -> bool:
    sent = await gateway.sandbox.webhook(connection_id, webhook_body(connection_id, None, "rates"))
    return sent.status == 401


# --- the watch ------------------------------------------------------------------------------------------------------


ADD = "document.body.append(Object.assign(document.createElement('{}'), {{textContent: '{}'}}))"
DEEDS = {
    "policy: style-src": ADD.format("style", "*{}"),
    "policy: script-src": ADD.format("script", "1"),
    "policy: img-src": "new Image().src = 'http://127.0.0.1:1/x.png'",
    "missing: ": "fetch('/static/none.css')",
    "failed: ": "document.body.append(Object.assign(document.createElement('iframe'), {src: '//127.0.0.1:1/'}))",
    "console: ": "console.error('oh')",
    "thrown: ": "setTimeout(() => { throw new Error('oh') })",
}


async def test_what_a_page_must_not_do_is_heard(gateway: World, chromium: Browser) -> None:
    async with person(chromium, *origins(gateway)) as (page, watch):
        await page.goto(f"{gateway.stack.url}/account")
        for heard, deed in DEEDS.items():
            await page.evaluate(f"() => {{ {deed} }}")
            await until(partial(watch.heard, heard), SECONDS, what=heard)
        await page.goto(gateway.stack.url.replace("127.0.0.1", "localhost"))
        assert watch.heard("foreign: http://localhost")
        watch.complaints.clear()


# --- every page in every look ---------------------------------------------------------------------------------------


async def users_pages(gateway: World, page: Page) -> AsyncIterator[str]:
    """A user's pages, one after the other: their names."""
    user = await user_of(gateway, 301, locations=60)
    address = await gateway.sandbox.connect(301)
    await page.goto(address.replace("responseType=code", "responseType=token"))
    yield "error"
    await page.goto(address)
    yield "login"
    await sign_in(page, user, "wrong")
    await expect(page.get_by_role("alert")).to_be_visible()
    yield "login-wrong"
    await sign_in(page, user)
    await headline(page, "Connect your listings to Syncaroo?")
    yield "consent"
    await page.goto(f"{gateway.stack.url}/account")
    yield "account-empty"
    for number in (301, 302, 98765432):
        await page.goto(await gateway.sandbox.connect(number))
        await page.get_by_role("button", name="Allow").click()
        await headline(page, f"Connection {number} is confirmed")
    await page.goto(f"{gateway.stack.url}/account")
    yield "account"
    await page.get_by_role("button", name="Revoke connection 302").click()
    await headline(page, "Revoke connection 302?")
    yield "account-revoke"
    await page.get_by_role("button", name="Revoke").click()
    await headline(page, "Your connections to Syncaroo")
    yield "account-revoked"
    await page.get_by_role("button", name="Sign out").click()
    await headline(page, "You are signed out")
    yield "signed-out"


async def operators_pages(gateway: World, page: Page) -> AsyncIterator[str]:
    """An operator's."""
    await page.goto(f"{gateway.stack.url}/connect")
    yield "connect"
    await to_confirm(gateway, page)
    yield "confirm-waiting"
    async with token_worker(gateway):
        await headline(page, "Connected to Syncaroo")
    yield "confirm-connected"
    await page.goto(f"{gateway.stack.url}/connect")
    await page.get_by_role("button", name="Deny").click()
    await headline(page, "Not connected")
    yield "confirm-declined"


@pytest.mark.parametrize("tour", [users_pages, operators_pages])
async def test_every_page_is_for_everybody(gateway: World, chromium: Browser, axe: Path, tour: Any) -> None:
    """axe finds nothing serious, in light and dark, on a phone and a desk; nothing is cut off on the phone."""
    context = await chromium.new_context(bypass_csp=True)  # so that axe can be put into the page
    context.set_default_timeout(SECONDS * 1000)
    page = await context.new_page()
    faults: list[str] = []
    async for name in tour(gateway, page):
        await page.add_script_tag(path=axe)
        for scheme, width in LOOKS:
            await page.emulate_media(color_scheme=scheme)
            await page.set_viewport_size({"width": width, "height": 900})
            faults += [f"{name}, {scheme}, {width}: {fault}" for fault in await seen(page)]
            if SCREENSHOTS:
                await page.screenshot(path=f"{SCREENSHOTS}/{name}-{scheme}-{width}.png", full_page=True)
    await context.close()
    assert faults == []


async def seen(page: Page) -> list[str]:
    found: list[str] = await page.evaluate(AXE)
    overflow = await page.evaluate(OVERFLOW)
    return [*found, *([f"{overflow} pixels are cut off"] if overflow else [])]


async def test_a_page_that_is_not_for_everybody_is_found(chromium: Browser, axe: Path) -> None:
    page = await chromium.new_page(viewport={"width": 400, "height": 900})
    await page.set_content('<img src="data:,"><p style="width: 500px; color: #bbb; background: #fff">Pale</p><input>')
    await page.add_script_tag(path=axe)
    found = "\n".join(await seen(page))
    assert all(fault in found for fault in ("image-alt", "color-contrast", "label", "pixels are cut off")), found
    await page.close()
