"""The console in a real browser, over real processes: an operator sees what happens and mends what is stuck."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect
from sqlalchemy import select

from common.broker.outgoing import outgoing
from common.clock import utc_now
from common.ids import new_id
from common.store.engine import Store
from common.store.parked import Parked, park
from schemas.messages import PlatformIds, WebhookReceived
from schemas.tables import EventRow, SuspectRow, table_of
from tests.acceptance.world import World, world
from tests.fixtures.broker import Vhosts
from tests.fixtures.chromium import SECONDS, Watch, person
from tests.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

expect.set_options(timeout=SECONDS * 1000)

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
LOOKS = [(scheme, width) for scheme in SCHEMES for width in (400, 1440, 3840)]
SCREENSHOTS = os.environ.get("SCREENSHOTS")
"""A folder for a picture of every page, in every look."""

CONNECTION = 99
_event = table_of(EventRow)
AXE = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
    .filter(({impact}) => impact === "serious" || impact === "critical")
    .map(({id, help, nodes}) => `${id}: ${help}: ${nodes.map((node) => node.html).join(" ")}`)"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
DELAYS = """() => { window.delays = [];
    new MutationObserver((records) => { for (const {addedNodes} of records) for (const row of addedNodes)
        if (row.dataset) window.delays.push(Date.now() - Date.parse(row.dataset.at)); })
    .observe(document.getElementById("log"), {childList: true}); }"""
"""How long after its commit each row that comes is on the page, in milliseconds; both clocks are this machine's."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(directory: Path, amqp_url: str, sqlite_url: str) -> AsyncIterator[World]:
    """A whole gateway with a connection whose first burst is through."""
    async with world(directory, amqp_url=amqp_url, database_url=sqlite_url) as made:
        await made.onboard(CONNECTION)
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def another(tmp_path: Path, vhosts: Vhosts) -> AsyncIterator[World]:
    """One more, for who leaves it in ruins."""
    vhost = vhosts.take()
    database = f"sqlite+aiosqlite:///{tmp_path / 'gateway.db'}"
    async with world(tmp_path, amqp_url=vhost.url, database_url=database) as made:
        await made.onboard(CONNECTION)
        yield made
    vhosts.give_back(vhost)


@asynccontextmanager
async def store_of(gateway: World) -> AsyncIterator[Store]:
    store = Store(gateway.stack.environment["DATABASE_URL"])
    try:
        yield store
    finally:
        await store.close()


async def sign_in(gateway: World, page: Page, path: str = "/console") -> None:
    await page.goto(gateway.stack.url + path)
    await page.get_by_label("Admin token").fill(gateway.stack.environment["ADMIN_TOKEN"])
    await page.get_by_role("button", name="Continue").click()


@asynccontextmanager
async def operator(gateway: World, chromium: Browser, path: str = "/console") -> AsyncIterator[tuple[Page, Watch]]:
    """Somebody with the console open, which is live."""
    async with person(chromium, gateway.stack.url) as (page, watch):
        await sign_in(gateway, page, path)
        if path == "/console":
            await expect(page.locator("#live")).to_have_text("Live")
        yield page, watch


def rows(page: Page) -> Locator:
    return page.locator("#log > li")


async def newest(page: Page) -> str:
    return str(await rows(page).first.get_attribute("data-id"))


async def test_an_event_is_there_within_a_second_without_a_reload(gateway: World, chromium: Browser) -> None:
    async with operator(gateway, chromium) as (page, _):
        await page.evaluate("document.body.dataset.mark = 'the same document'")
        await page.evaluate(DELAYS)
        for _round in range(3):
            before = await newest(page)
            await gateway.sandbox.change("price", wait=False)
            await expect(rows(page).first).not_to_have_attribute("data-id", before)
        first = rows(page).first
        await expect(first.locator("del").first).to_be_visible()
        await expect(first.locator("ins").first).to_be_visible()
        delays: list[float] = await page.evaluate("window.delays")
        print("milliseconds from the commit to the page:", delays)
        assert delays
        assert sorted(delays)[len(delays) // 2] < 1000, delays
        assert await page.evaluate("document.body.dataset.mark") == "the same document"


async def test_what_is_paused_waits_and_what_is_filtered_stays_away(gateway: World, chromium: Browser) -> None:
    async with operator(gateway, chromium) as (page, _):
        before = await newest(page)
        await page.get_by_role("button", name="Pause").click()
        await gateway.sandbox.change("price", wait=False)
        go_on = page.get_by_role("button", name="Go on (1 waiting)")
        await expect(go_on).to_be_visible()
        assert await newest(page) == before
        await go_on.click()
        await expect(rows(page).first).not_to_have_attribute("data-id", before)
        await page.goto(f"{gateway.stack.url}/console?connection=98")
        await expect(page.locator("#live")).to_have_text("Live")
        async with operator(gateway, chromium) as (everything, _):
            before = await newest(everything)
            await gateway.sandbox.change("price", wait=False)
            await expect(rows(everything).first).not_to_have_attribute("data-id", before)
        await expect(page.locator("#empty")).to_be_visible()
        await expect(rows(page)).to_have_count(0)


async def test_a_stream_that_broke_off_misses_nothing(gateway: World, chromium: Browser) -> None:
    async with operator(gateway, chromium) as (page, watch):
        await page.context.set_offline(True)  # which ends nothing that is open
        assert await gateway.stack.terminate("ingress-1") == 0
        await gateway.stack.restart("ingress-1")
        await expect(page.locator("#live")).to_have_text("Connecting again …")
        await gateway.stack.wait_ready()
        await gateway.sandbox.change("price", wait=False)
        await gateway.ledger()
        async with store_of(gateway) as store:
            latest = await latest_event(store)
        row = page.locator(f'#log > li[data-id="{latest}"]')
        await expect(row).to_have_count(0)
        await page.context.set_offline(False)
        await expect(row).to_have_count(1)
        watch.complaints[:] = [one for one in watch.complaints if "/console/events" not in one]


async def latest_event(store: Store) -> str:
    async with store.reading() as transaction:
        row = await transaction.row(select(_event.c.event_id).order_by(_event.c.position.desc()).limit(1))
    assert row is not None
    return str(row.event_id)


async def test_a_dead_letter_is_replayed_by_a_click_and_its_event_comes(gateway: World, chromium: Browser) -> None:
    """A webhook whose change nobody has been told of is parked; replayed, it is answered."""
    done = await gateway.sandbox.change("price", webhook=False)
    await park_webhook(gateway, done.url, "upstream_gave_up")
    async with operator(gateway, chromium) as (page, _):
        before = await newest(page)
        await page.locator("#parked").get_by_role("button", name="Replay").click()
        await expect(page.get_by_text("1 dead letter parked as upstream_gave_up was replayed.")).to_be_visible()
        await expect(rows(page).first).not_to_have_attribute("data-id", before)
        await expect(rows(page).first).to_contain_text("by webhook")
    assert await gateway.admin.dead_letters() == []


async def park_webhook(gateway: World, url: str, reason: str) -> None:
    """What a webhook for it would be parked as."""
    message = WebhookReceived(
        delivery_id=new_id(), connection_id=CONNECTION, url=url, mapping=PlatformIds(), received_at=utc_now()
    )
    sent = outgoing(message, "fetch", CONNECTION)
    one = Parked("syncaroo.fetch", reason, CONNECTION, sent.routing_key, "WebhookReceived", sent.body, 5)
    async with store_of(gateway) as store, store.transaction() as transaction:
        await park(transaction, [one])


async def hold(gateway: World, number: int) -> list[str]:
    """So many listings are held, as after a walk that missed too many; their ids."""
    listings = [one for one in await gateway.admin.listings() if one["attributeType"] == "resources"][:number]
    known = [await gateway.admin.listing(one["listingId"]) for one in listings]
    async with store_of(gateway) as store, store.transaction() as transaction:
        now = await transaction.now()
        held = {"connection_id": CONNECTION, "state": "held", "walk": 1, "since": now}
        values = [held | {"listing_id": one["listingId"], "url": one["url"]} for one in known]
        await transaction.execute(table_of(SuspectRow).insert(), values)
    return [one["listingId"] for one in known]


async def nothing_is_held(gateway: World) -> bool:
    return bool((await gateway.admin.status())["held"] == 0)


@pytest.mark.parametrize("decision", ["Approve", "Discard"])
async def test_held_deletions_are_decided_by_a_click(gateway: World, chromium: Browser, decision: str) -> None:
    """Approved or not: what is still there at its own URL stays."""
    held = await hold(gateway, 2)
    async with operator(gateway, chromium) as (page, _):
        await page.get_by_role("link", name="Decide").click()
        await expect(page.get_by_role("heading", name=f"Connection {CONNECTION}: 2 held")).to_be_visible()
        await page.get_by_role("button", name=decision).click()
        await expect(page.get_by_role("status")).to_contain_text(f"2 listings of connection {CONNECTION}")
        await expect(page.get_by_text("None: nobody has to decide anything.")).to_be_visible()
    await until(lambda: nothing_is_held(gateway), SECONDS, what="nothing is held")
    await gateway.ledger(60)
    assert not any([(await gateway.admin.listing(one))["deleted"] for one in held])


async def test_an_event_leads_to_its_story(gateway: World, chromium: Browser) -> None:
    async with operator(gateway, chromium) as (page, _):
        before = await newest(page)
        await gateway.sandbox.change("price", wait=False)
        await expect(rows(page).first).not_to_have_attribute("data-id", before)
        await rows(page).first.get_by_role("link").click()
        story = page.locator(".steps")
        await expect(story.get_by_text("A webhook came").first).to_be_visible()
        await expect(story.get_by_text("Version").first).to_be_visible()
        await expect(page.locator("pre")).to_be_visible()


async def test_the_keyboard_is_enough(gateway: World, chromium: Browser) -> None:
    """To the content by the first key, and to a connection that is read again."""
    async with operator(gateway, chromium) as (page, _):
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="To the content")).to_be_focused()
        assert await page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
        await page.keyboard.press("Enter")
        await expect(page.locator("#main")).to_be_focused()
        resync = page.get_by_role("button", name=f"Resync connection {CONNECTION}")
        for _key in range(20):
            await page.keyboard.press("Tab")
            if await resync.evaluate("(button) => button === document.activeElement"):
                break
            assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        await expect(resync).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.get_by_text(f"of connection {CONNECTION} are read again.")).to_be_visible()
    await gateway.ledger(60)


async def test_without_script_it_is_the_same_page(gateway: World, chromium: Browser) -> None:
    await park_webhook(gateway, "http://127.0.0.1:1/none", "forbidden_host")
    async with person(chromium, gateway.stack.url, script=False) as (page, _):
        await sign_in(gateway, page, "/console/dead-letters?reason=forbidden_host")
        await expect(page.get_by_role("heading", name="Parked as forbidden_host")).to_be_visible()
        await page.get_by_role("button", name="Drop all … 1 parked as forbidden_host").click()
        await page.get_by_role("button", name="Drop").click()
        await expect(page.get_by_role("status")).to_have_text("1 dead letter parked as forbidden_host was dropped.")
        await page.goto(f"{gateway.stack.url}/console")
        await expect(rows(page).first).to_be_visible()


# --- every page in every look ---------------------------------------------------------------------------------------


async def tour(gateway: World, page: Page) -> AsyncIterator[str]:
    """The pages, one after the other: their names; the last ones of a bad day."""
    await page.goto(f"{gateway.stack.url}/console")
    yield "console-login"
    await sign_in(gateway, page)
    await expect(page.locator("#live")).to_have_text("Live")
    yield "console"
    await rows(page).first.get_by_role("link").click()
    yield "console-story"
    await page.goto(f"{gateway.stack.url}/console/listings?q={CONNECTION}")
    yield "console-search"
    url = f"{gateway.stack.sandbox_url}/v1/locations/12/resources/{'very-long-' * 20}%3Cb%3E"
    for reason in ("upstream_gave_up", "forbidden_host", "upstream_gave_up"):
        await park_webhook(gateway, url, reason)
    await hold(gateway, 5)
    await gateway.sandbox.revoke_refresh()
    await gateway.sandbox.expire_access()
    await gateway.sandbox.change("price", wait=False)
    await page.goto(f"{gateway.stack.url}/console")
    await expect(page.get_by_role("link", name="Authorise now")).to_be_visible()
    yield "console-bad-day"
    await page.goto(f"{gateway.stack.url}/console/dead-letters")
    yield "console-dead-letters"
    await page.locator('a[href^="/console/dead-letters/"]').first.click()
    yield "console-dead-letter"
    await page.get_by_role("button", name="Drop …").click()
    yield "console-drop"
    await page.goto(f"{gateway.stack.url}/console/held")
    yield "console-held"


@pytest.mark.timeout(600)  # sixty looks, of which twenty are eight megapixels
async def test_every_page_is_for_everybody(another: World, chromium: Browser, axe: Path) -> None:
    """axe finds nothing serious and nothing is cut off, in light and dark, from a phone to a wall."""
    faults: list[str] = []
    async with await chromium.new_context(bypass_csp=True) as context:  # so that axe can be put into the page
        context.set_default_timeout(SECONDS * 1000)
        page = await context.new_page()
        async for name in tour(another, page):
            await page.add_script_tag(path=axe)
            for scheme, width in LOOKS:
                await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                await page.set_viewport_size({"width": width, "height": 2160 if width > 2000 else 900})
                faults += [f"{name}, {scheme}, {width}: {fault}" for fault in await page.evaluate(AXE)]
                if overflow := await page.evaluate(OVERFLOW):
                    faults.append(f"{name}, {scheme}, {width}: {overflow} pixels are cut off")
                if SCREENSHOTS:
                    await page.screenshot(path=f"{SCREENSHOTS}/{name}-{scheme}-{width}.png", full_page=True)
    assert faults == []
