"""The database: whether it answers, has our schema, is ours, can be written, and what it says of our processes."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select

from common.crypto import TokenCipher
from common.errors import SettingsError, StoreUnavailable
from common.settings import KeySettings, SiteSettings, SyncarooSettings
from common.store.engine import Store
from common.store.insert import insert
from common.store.keys import check_keys, take_inventory
from common.store.schema import check_facts, check_file, current_revision, facts_of, head_revision, schema_state
from common.words import things
from ingress.admin.store.status import Counts, StatusStore
from ops.commands.keys import report
from ops.doctor.around import Around
from ops.doctor.finding import Finding, failed, ok, skipped, warning
from ops.migrating import schema_differences
from ops.why.words import length
from schemas.tables import BeatRow, EventRow, FactRow, table_of

LEAST_FREE, LITTLE_FREE = 50 * 10**6, 10**9
SILENT_SECONDS, LATE_SECONDS = 30.0, 60.0
CLOCK_WARNS, CLOCK_FAILS = 5.0, 60.0

_beat, _event, _fact = table_of(BeatRow), table_of(EventRow), table_of(FactRow)


async def reach(around: Around) -> Finding:
    """Whether it answers and lets us in."""
    store = around.store
    where = store.url.render_as_string(hide_password=True)
    try:
        check_file(store)
        async with store.reading() as transaction:
            await transaction.now()
    except Exception as error:  # noqa: BLE001  # drivers raise their own, of many kinds: judged by its state
        return judge_store_error(where, error)
    return ok(where)


def judge_store_error(where: str, error: BaseException) -> Finding:
    """What a database's refusal means. Pure; what is told holds no value of a row and no password."""
    state = sqlstate_of(error)
    named = {
        "28P01": ("it refuses user and password", "put the right user and password into DATABASE_URL"),
        "28000": (
            "it refuses the user",
            "create the user, or let it in by pg_hba.conf, or name another in DATABASE_URL",
        ),
        "3D000": (
            "there is no such database",
            "`createdb NAME`, or name another in DATABASE_URL; then `gateway setup`",
        ),
        "42501": ("the user may not read our tables", "grant them to the user that DATABASE_URL names"),
        "53300": ("it has no connection left", "raise max_connections, or run fewer processes"),
        "53100": ("its disk is full", "free disk space on the database's machine"),
    }
    if state in named:
        seen, advice = named[state]
        return failed(f"DATABASE_URL: {where}: {seen}", advice)
    if "gateway setup" in str(error):
        return failed(f"DATABASE_URL: {str(error).removeprefix('store: ')}", "`gateway setup`")
    root = roots(error)[-1]
    words = (
        "nothing listens there" if isinstance(root, ConnectionRefusedError) else f"no answer ({type(root).__name__})"
    )
    if isinstance(root, OSError) and type(root).__name__ == "gaierror":
        words = "its host's name is not known"
    return failed(
        f"DATABASE_URL: {where}: {words}", "start the database, or correct host, port or file in DATABASE_URL"
    )


def roots(error: BaseException) -> list[BaseException]:
    """The error, and what it came from, the first cause last."""
    found: list[BaseException] = [error]
    while (cause := getattr(found[-1], "orig", None) or found[-1].__cause__) is not None and cause not in found:
        found.append(cause)
    return found


def sqlstate_of(error: BaseException) -> str:
    """PostgreSQL's code of what went wrong; empty: it told none."""
    return next((str(state) for one in roots(error) if (state := getattr(one, "sqlstate", None))), "")


async def schema(around: Around) -> Finding:
    """Whether the tables are those that this program writes to."""
    found = await current_revision(around.store)
    differences = await schema_differences(around.store) if schema_state(found) == "ours" else []
    return judge_schema(found, differences)


def judge_schema(found: str | None, differences: list[str]) -> Finding:
    """Pure, but for the migrations that this program knows."""
    match schema_state(found):
        case "none":
            return failed("the database has no tables of ours", "`gateway setup`")
        case "older":
            return failed(f"schema {found} is older than this program's ({head_revision()})", "`gateway setup`")
        case "newer":
            return failed(f"schema {found} is newer than this program's ({head_revision()})", "run the newer program")
    if differences:
        return warning(
            f"schema {found}, but {'; '.join(differences[:5])}",
            "somebody has changed the tables: `gateway db check` tells all of it; put it back, or restore a backup",
        )
    return ok(f"schema {found}, as this program needs it")


async def environment(around: Around) -> Finding:
    """Whether it belongs to this environment."""
    facts = facts_of(around.of(SiteSettings), around.of(SyncarooSettings))
    try:
        await check_facts(around.store, facts)
    except SettingsError as error:
        return failed("; ".join(error.faults), "put the setting back, or name another DATABASE_URL")
    return ok("it belongs to this environment")


async def disk(around: Around) -> Finding:
    """Whether a row can be written (it is taken back), and how much room there is beside a file."""
    try:
        await _write_and_take_back(around.store)
    except Exception as error:  # noqa: BLE001  # as above
        return judge_write_error(error)
    if around.store.postgres:
        return ok("a row can be written (it was taken back)")
    return await asyncio.to_thread(_room_beside, around.store.url.database or "")


def judge_write_error(error: BaseException) -> Finding:
    """Pure."""
    state, words = sqlstate_of(error), " ".join(str(one) for one in roots(error))
    if state == "53100" or "is full" in words:
        return failed("nothing can be written: the database or its disk is full", "free disk space, or raise its limit")
    if state == "25006" or "readonly" in words:
        return failed(
            "nothing can be written: the database is read-only",
            "name the primary in DATABASE_URL, or chmod the file and its folder",
        )
    if state == "42501":
        return failed("our user may not write", "grant it insert, update and delete on our tables")
    if "locked" in words or (isinstance(error, StoreUnavailable) and "lock" in str(error)):
        return failed(
            "nothing can be written: another process holds the database",
            "end what has it open, such as a sqlite3 shell",
        )
    return failed(f"nothing can be written ({type(roots(error)[-1]).__name__})", "look into the database's log")


def _room_beside(file: str) -> Finding:
    folder = os.path.dirname(os.path.abspath(file))
    return judge_room(shutil.disk_usage(folder).free, folder)


def judge_room(free: int, folder: str) -> Finding:
    """Pure."""
    seen = f"{free / 10**6:.0f} MB are free in {folder}"
    if free < LEAST_FREE:
        return failed(f"the disk is full: {seen}", f"free disk space in {folder}, or move the file and DATABASE_URL")
    if free < LITTLE_FREE:
        return warning(seen, f"free disk space in {folder} soon")
    return ok(seen)


class _TakenBack(Exception):
    """Ends a transaction that is not to be kept."""


async def _write_and_take_back(store: Store) -> None:
    try:
        async with store.transaction() as transaction:
            statement = insert(transaction, _fact).values(name="doctor", value="x" * 10_000).on_conflict_do_nothing()
            await transaction.execute(statement)
            raise _TakenBack
    except _TakenBack:
        return


async def clock(around: Around) -> float | None:
    """By how many seconds the store's clock is ahead of this machine's; None: it is the same clock."""
    if not around.store.postgres:
        return None
    async with around.store.reading() as transaction:
        before = datetime.now(UTC)
        there = await transaction.now()
        return (there - (before + (datetime.now(UTC) - before) / 2)).total_seconds()


async def keys(around: Around) -> Finding:
    """Whether what is sealed can be opened."""
    clear = around.of(KeySettings).clear()
    try:
        await check_keys(around.store, TokenCipher(clear))
    except SettingsError as error:
        return failed("; ".join(error.faults), "put the key back into SECRET_KEYS; `gateway keys check` says more")
    found = report(clear, await take_inventory(around.store))
    if found["unreadable"]:
        return warning(f"no key opens {found['unreadable']} parked messages", "`gateway keys check`")
    return ok("there are no tokens yet" if found["grant"] is None else f"key {found['grant']} opens Syncaroo's tokens")


async def counts(around: Around) -> Counts:
    """How things stand."""
    return await StatusStore(around.store).counts()


async def grant(around: Around) -> Finding:
    """Whether we are let into Syncaroo's API."""
    found = await counts(around)
    return judge_grant(found.grant.state, found.grant.expires_at, datetime.now(UTC), around.site)


def judge_grant(state: str, expires_at: datetime | None, now: datetime, site: str) -> Finding:
    """Pure."""
    connect = f"open {site}/connect and authorise"
    if state == "needs_authorisation":
        return failed("Syncaroo takes our refresh token no more; fetching waits", connect)
    if state != "active":
        return warning("nobody has let us into Syncaroo's API yet", connect)
    if expires_at is not None and expires_at < now:
        return warning(
            f"the access token ran out {length(now - expires_at)} ago and was not renewed",
            "is `python -m workers token` running, and does it reach Syncaroo?",
        )
    return ok("active" if expires_at is None else f"active; the access token lasts for {length(expires_at - now)} more")


async def parked(around: Around) -> Finding:
    """What could not be processed."""
    return judge_parked((await counts(around)).parked)


def judge_parked(by_reason: dict[str, int]) -> Finding:
    """Pure."""
    if not by_reason:
        return ok("nothing is parked")
    told = ", ".join(f"{number} {reason}" for reason, number in sorted(by_reason.items()))
    return warning(
        f"could not be processed: {told}", "`gateway dlq list`, then `gateway dlq replay` or `gateway dlq drop`"
    )


async def held(around: Around) -> Finding:
    """What waits for a person's decision."""
    number = (await counts(around)).held
    if number:
        return warning(
            f"{things(number, 'deletion')} held", "`gateway held list`, then `gateway held approve` or `discard`"
        )
    return ok("no deletion is held")


@dataclass(frozen=True)
class Outbox:
    """Ages in seconds by the store's clock; None: no relay has ever led here, nothing waits."""

    pulse: float | None
    oldest: float | None


async def relay(around: Around) -> Finding:
    """Whether events are published, and by whom."""
    async with around.store.reading() as transaction:
        now = await transaction.now()
        beat = await transaction.row(select(_beat.c.at).where(_beat.c.name == "relay"))
        waiting = select(func.min(_event.c.created_at).label("at")).where(_event.c.published_at.is_(None))
        oldest = await transaction.row(waiting)
    since = [None if row is None or row.at is None else (now - row.at).total_seconds() for row in (beat, oldest)]
    return judge_outbox(Outbox(*since))


def judge_outbox(found: Outbox) -> Finding:
    """Pure."""
    start = "start `python -m workers relay` (one or more)"
    if found.pulse is None:
        waits = found.oldest is not None
        return (
            failed("events wait, and no relay has ever run", start) if waits else skipped("no relay has run here yet")
        )
    if found.pulse > SILENT_SECONDS:
        return failed(f"the relay shows no pulse for {found.pulse:.0f} s; events wait", start)
    if found.oldest is not None and found.oldest > LATE_SECONDS:
        return warning(
            f"the oldest event waits for {found.oldest:.0f} s to be published",
            "look for relay.held_up in the relay's log; `gateway doctor --only alarms`",
        )
    return ok("a relay leads, and nothing waits long")
