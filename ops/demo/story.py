"""The steps of the story, in order. Each drives the real thing from outside and waits for what must come of it."""

from __future__ import annotations

import secrets
from typing import Any

from common.settings import PlatformSettings, SiteSettings
from ops.commands.portal import portal_values
from ops.demo.browser import Browser, Page
from ops.demo.stage import Stage, StoryFailed
from ops.ledger import Ledger, audit
from sandbox.truth import Truth

CONNECTION = 99
USER = "1"
LOGIN = "ada"
BURST, TARGETS, DYING = 150, 25, 10

Data = dict[str, Any]


def show_portal(stage: Stage) -> None:
    """What a person types into Syncaroo's developer portal."""
    settings = stage.stack.environment
    site = SiteSettings(site_uri=settings["SITE_URI"])
    platform = PlatformSettings.model_validate(
        {
            "platform_client_id": settings["PLATFORM_CLIENT_ID"],
            "platform_client_secret": settings["PLATFORM_CLIENT_SECRET"],
        }
    )
    stage.tell.heading("For Syncaroo's developer portal (gateway portal)")
    for block in portal_values(site, platform, show_secret=False):
        for name, value in block.items():
            stage.tell.line(f"  {name:<20} {value}")


async def create_user(stage: Stage) -> str:
    """The platform tells the gateway of a user and their listings → the user's password."""
    password = secrets.token_urlsafe(12)
    with stage.tell.step("the platform creates a user and their listings (admin API)") as step:
        locations = platform_locations(await stage.sandbox.world())
        await stage.admin.put_user(USER, LOGIN, password)
        await stage.admin.put_locations(USER, locations)
        rooms = sum(len(location.get("resources", [])) for location in locations.values())
        step.note(f"{len(locations)} locations, {rooms} rooms")
    return password


def platform_locations(world: Truth) -> dict[str, Data]:
    """The platform's own listings of the same workspaces, under ids of its own, and one it has deleted (§3.3's map)."""
    rooms: dict[str, list[Data]] = {}
    for url, item in world.items.items():
        location_url, noun, _ = url.rsplit("/", 2)
        if noun == "resources":
            of_location = rooms.setdefault(location_url, [])
            number = 7000 + 100 * len(rooms) + len(of_location)
            of_location.append({"ID": str(number), "name": item["name"], "status": "active", "type": item["type"]})
    locations = {
        str(1198 + index): {"name": world.items[url]["Name"], "status": "active", "resources": found}
        for index, (url, found) in enumerate(rooms.items())
    }
    locations["9587"] = {"name": "Deleted Workspace", "status": "deleted"}
    return {number: {"ID": number, **location} for number, location in locations.items()}


async def connect_user(stage: Stage, password: str) -> None:
    """A user adds the integration at Syncaroo, signs in here, consents, and Syncaroo fetches tokens and checks."""
    async with Browser() as browser:
        with stage.tell.step(f"the user {LOGIN} is sent here by Syncaroo, signs in and consents") as step:
            login = await browser.open(await stage.sandbox.connect(CONNECTION))
            consent = await browser.submit(login, text=LOGIN, password=password)
            _expect(consent.form is not None and consent.form.password is None, "the consent page", consent)
            back = await browser.submit(consent, button=("decision", "allow"))
            _expect(back.url.startswith(stage.stack.sandbox_url), "the way back to Syncaroo", back)
            step.note(back.heading)
    with stage.tell.step("Syncaroo exchanges the code and checks the connection") as step:
        found = (await stage.sandbox.connections()).get(CONNECTION)
        if found is None or found.state != "confirmed":
            state = "unknown" if found is None else found.state
            raise StoryFailed(f"Syncaroo holds the connection for {state}: {back.heading}. Logs: {stage.logs}.")
        step.note(f"{len(found.locations)} locations and {len(found.resources)} rooms matched")


async def connect_admin(stage: Stage) -> None:
    """The operator authorises the gateway at Syncaroo; the page follows until the tokens are here."""
    token = stage.stack.environment["ADMIN_TOKEN"]
    async with Browser() as browser:
        with stage.tell.step("the operator opens /connect, logs in and allows access at Syncaroo") as step:
            login = await browser.open(f"{stage.stack.url}/connect")
            authorize = await browser.submit(login, password=token)
            _expect(authorize.url.startswith(stage.stack.sandbox_url), "Syncaroo's authorize page", authorize)
            page = await browser.submit(authorize, button=("decision", "allow"))
            _expect("/confirm" in page.url, "the confirm page", page)
            await stage.until(lambda: _active(stage), "the token worker gets Syncaroo's tokens")
            page = await browser.open(page.url)
            step.note(page.heading)


async def _active(stage: Stage) -> bool:
    return bool((await stage.admin.status())["grant"]["state"] == "active")


async def first_burst(stage: Stage) -> None:
    """Everything that Syncaroo's first webhooks told becomes `created` events."""
    with stage.tell.step("Syncaroo's first webhooks become events at a subscriber") as step:
        await stage.sandbox.quiet()
        expected = {url.rsplit("/", 1)[1] for url in (await stage.sandbox.world()).expected[str(CONNECTION)]}

        async def all_created() -> bool:
            return expected <= {one["itemId"] for one in stage.subscriber.changes() if one["change"] == "created"}

        await stage.until(all_created, f"{len(expected)} listings are created", 30)
        records = await stage.sandbox.records()
        step.note(
            f"{len(records.webhooks)} webhooks, {len(records.calls)} API calls, {len(stage.subscriber.events)} events"
        )


async def change_price(stage: Stage) -> None:
    """Of a rate that is known here: of what else there is, no webhook may have told yet."""
    held = {(one["attributeType"], one["itemId"]) for one in await stage.admin.listings() if not one["deleted"]}
    rates = _of_kind(await stage.sandbox.world(), "rates")
    known = next(url for url in rates if ("rates", url.rsplit("/", 1)[1]) in held)
    with stage.tell.step("a price changes") as step:
        event = await _change(stage, "price", "updated", known)
        step.note(f"{event['change']}, {difference(event)}, version {event['version']}")


async def add_room(stage: Stage) -> None:
    with stage.tell.step("a new room") as step:
        event = await _change(stage, "room", "created")
        step.note(f"{event['change']} {event['current']['name']!r}, version {event['version']}")


async def remove_room(stage: Stage) -> None:
    """One that was there from the start; its rates go with it, though no webhook tells of them."""
    with stage.tell.step("a removed room") as step:
        since = len(stage.subscriber.events)
        done = await stage.sandbox.change("remove", _of_kind(await stage.sandbox.world(), "resources")[0])
        event, *rates = [await _event(stage, since, url, "deleted") for url in done.gone]
        step.note(f"{event['change']} {event['previous']['name']!r} and its {len(rates)} rates")


async def lose_webhook(stage: Stage) -> None:
    """The world changes and nobody tells; a resync finds out."""
    with stage.tell.step("a webhook gets lost, and a resync repairs it (admin API)") as step:
        since = len(stage.subscriber.events)
        known = _of_kind(await stage.sandbox.world(), "rates")[-1]
        done = await stage.sandbox.change("price", known, webhook=False)
        await stage.admin.resync(CONNECTION)
        event = await _event(stage, since, done.url, "updated")
        step.note(f"{event['change']}, {difference(event)}, reason {event['reason']}")


async def kill_worker(stage: Stage) -> Ledger:
    """A fetch worker dies with the answers to ten changes under way → the ledger once all has settled.

    Its webhooks were accepted and its claims are held by nobody who lives: they come back when its lease has run out.
    """
    with stage.tell.step(f"ten prices change, {BURST} more webhooks come, and the fetch worker is killed") as step:
        await stage.sandbox.fault("api_slow", count=DYING, seconds=5.0, match="/rates/")
        for url in _of_kind(await stage.sandbox.world(), "rates")[:DYING]:
            await stage.sandbox.change("price", url)
        await stage.sandbox.burst(BURST, TARGETS, wait=False)
        under_way = await stage.until(lambda: _under_way(stage), "the fetch worker asks for the new prices")
        await stage.stack.kill("fetch-1")
        await stage.sandbox.clear_faults()
        step.note(f"kill -9 with {under_way} calls under way")
    with stage.tell.step("another fetch worker takes over what the dead one had claimed (its lease: 15 s)") as step:
        await stage.stack.restart("fetch-1")
        await stage.sandbox.quiet()
        ledger = await settle(stage)
        step.note("all is settled" if ledger.adds_up else "not all is settled")
    return ledger


async def settle(stage: Stage, seconds: float = 40.0) -> Ledger:
    """The ledger as soon as it adds up, else as it is after so long."""

    async def adds_up() -> Ledger | None:
        ledger = audit(await stage.evidence())
        return ledger if ledger.adds_up else None

    try:
        return await stage.until(adds_up, "the ledger adds up", seconds)
    except StoryFailed:
        stage.complain_of_the_dead()
        return audit(await stage.evidence())


async def _under_way(stage: Stage) -> int:
    """How many calls Syncaroo has not answered; 0 until most of the slow ones have come."""
    waiting = sum(call.order_ended is None for call in (await stage.sandbox.records()).calls)
    return waiting if waiting > DYING // 2 else 0


async def _change(stage: Stage, kind: str, change: str, url: str | None = None) -> Data:
    """Change the world → the event that tells it."""
    since = len(stage.subscriber.events)
    done = await stage.sandbox.change(kind, url)
    return await _event(stage, since, done.url, change)


async def _event(stage: Stage, since: int, url: str, change: str) -> Data:
    item_id = url.rsplit("/", 1)[1]

    async def come() -> Data | None:
        found = stage.subscriber.changes(since)
        return next((one for one in found if one["itemId"] == item_id and one["change"] == change), None)

    return await stage.until(come, f"an event {change} for {url}")


def _of_kind(world: Truth, noun: str) -> list[str]:
    """The items of a kind that the connection knows of."""
    return [url for url in world.expected[str(CONNECTION)] if url.rsplit("/", 2)[1] == noun]


def difference(data: Data) -> str:
    """`price 35.00 → 40.50`."""
    previous, current = data["previous"], data["current"]
    return ", ".join(f"{name} {previous.get(name)} → {current.get(name)}" for name in data["changedFields"])


def _expect(right: bool, what: str, page: Page) -> None:
    if not right:
        raise StoryFailed(f"Instead of {what} came {page.heading!r} ({page.status} at {page.url.partition('?')[0]}).")
