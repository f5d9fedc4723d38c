"""The flow as it is drawn: its stages with what waits at each, how much passes, and how it stands. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.clock import length
from ingress.console.rules import Mood
from ingress.flow.flow import Flow, GrantFlow

WORDS: Mapping[Mood, str] = {"good": "fine", "slow": "slow", "bad": "stuck", "quiet": "not known"}

TARGETS_SLOW, TARGETS_STUCK = 30.0, 300.0
"""Seconds that the oldest target of a webhook waits."""
RESYNC_SLOW, RESYNC_STUCK = 3600.0, 6 * 3600.0
EVENTS_SLOW, EVENTS_STUCK = 5.0, 60.0
QUEUE_SLOW, QUEUE_STUCK = 1000, 10_000
"""Messages that wait in a queue."""


@dataclass(frozen=True)
class Stage:
    """One stage: `depth` is what waits there or is kept there (`unit` says which), `rate` passes in a minute,
    `oldest` is how long the oldest waits; None: there is no such number here."""

    name: str
    about: str
    depth: int | None
    unit: str
    rate: int | None = None
    oldest: str | None = None
    mood: Mood = "good"
    note: str = ""
    parked: int = 0

    @property
    def word(self) -> str:
        """The mood in a word."""
        return WORDS[self.mood]


@dataclass(frozen=True)
class Surroundings:
    """What the store does not know: messages in the queues (those that are known), the webhooks of the last minute at
    this process (None: it has not listened for so long), and whether the broker answers."""

    depths: Mapping[str, int]
    webhooks: int | None
    broker: bool


def stages_of(flow: Flow, around: Surroundings) -> list[Stage]:
    """From the webhook to the subscribers."""
    return [
        _ingress(around),
        _queue("syncaroo.fetch", "wake-up calls for targets", flow, around),
        _targets(flow),
        _syncaroo(flow),
        _queue("syncaroo.reconcile", "answers to be compared", flow, around),
        _listings(flow),
        _events(flow),
        _subscribers(flow, around),
    ]


def _ingress(around: Surroundings) -> Stage:
    mood: Mood = "good" if around.broker else "bad"
    note = "" if around.broker else "The broker does not answer: webhooks are refused, and Syncaroo sends them again."
    return Stage("Webhooks", "taken by this ingress", None, "", around.webhooks, mood=mood, note=note)


def _queue(name: str, about: str, flow: Flow, around: Surroundings) -> Stage:
    depth = around.depths.get(name)
    parked = sum(group.count for group in flow.parked if group.queue == name)
    mood: Mood = "quiet" if depth is None else _mood(depth, QUEUE_SLOW, QUEUE_STUCK)
    return Stage(name, about, depth, "messages", mood=mood if around.broker else "bad", parked=parked)


def _targets(flow: Flow) -> Stage:
    webhook, resync, later = flow.targets.webhook, flow.targets.resync, flow.targets.put_off
    oldest = max(webhook.oldest_seconds or 0.0, resync.oldest_seconds or 0.0)
    mood = _worse(
        _mood(webhook.oldest_seconds or 0.0, TARGETS_SLOW, TARGETS_STUCK),
        _mood(resync.oldest_seconds or 0.0, RESYNC_SLOW, RESYNC_STUCK),
    )
    parts = [f"{resync.count} by resync"] if resync.count else []
    if later.count:
        next_one = "" if flow.targets.next_seconds is None else f", next in {length(flow.targets.next_seconds)}"
        parts.append(f"{later.count} put off{next_one}")
    depth = webhook.count + resync.count
    return Stage(
        "Targets", "URLs to be fetched", depth, "due", oldest=length(oldest) if depth else None, mood=mood,
        note="; ".join(parts),
    )  # fmt: skip


def _syncaroo(flow: Flow) -> Stage:
    rate = sum(flow.attempts.by_outcome.values())
    blocked = [(host, budget.blocked_seconds) for host, budget in flow.budgets.items() if budget.blocked_seconds > 0]
    bad = {name: found for name, found in sorted(flow.attempts.by_status.items()) if name != "2xx"}
    notes = [f"{found} with {'no answer' if name == 'none' else name}" for name, found in bad.items()]
    notes += [f"{host} wants {length(seconds)} of rest" for host, seconds in blocked]
    mood: Mood = "slow" if blocked or sum(bad.values()) * 2 > max(rate, 1) else "good"
    if flow.grant.state != "active":
        mood = "bad" if flow.grant.state == "needs_authorisation" else "slow"
        notes.insert(0, "no access")
    return Stage("Syncaroo", "calls of its API", None, "", rate, mood=mood, note="; ".join(notes))


def _listings(flow: Flow) -> Stage:
    changes = {word: found for word, found in flow.events.changes_last_minute.items() if found}
    note = ", ".join(f"{found} {word}" for word, found in changes.items())
    mood: Mood = "slow" if flow.held.count else "good"
    note = "; ".join(filter(None, [f"{flow.held.count} held for you" if flow.held.count else "", note]))
    return Stage("Listings", "the last known truth", flow.listings, "live", sum(changes.values()), mood=mood, note=note)


def _events(flow: Flow) -> Stage:
    waiting = flow.events.unpublished
    oldest = None if not waiting.count or waiting.oldest_seconds is None else length(waiting.oldest_seconds)
    mood = _mood(waiting.oldest_seconds or 0.0, EVENTS_SLOW, EVENTS_STUCK)
    return Stage("Events", "written, to be published", waiting.count, "unpublished", oldest=oldest, mood=mood)


def _subscribers(flow: Flow, around: Surroundings) -> Stage:
    queues = ("syncaroo.fetch", "syncaroo.reconcile")
    parked = sum(group.count for group in flow.parked if group.queue not in queues)
    mood: Mood = "good" if around.broker else "bad"
    note = "" if around.broker else "The broker does not answer."
    return Stage(
        "Subscribers", "on syncaroo.events", None, "", flow.events.published_last_minute, mood=mood, note=note,
        parked=parked,
    )  # fmt: skip


def _mood(value: float, slow: float, stuck: float) -> Mood:
    return "bad" if value > stuck else "slow" if value > slow else "good"


def _worse(one: Mood, other: Mood) -> Mood:
    order: tuple[Mood, ...] = ("bad", "slow", "quiet", "good")
    return min(one, other, key=order.index)


@dataclass(frozen=True)
class GrantView:
    """Our access to Syncaroo in words; seconds are for the countdowns, None where there is none."""

    title: str
    mood: Mood
    text: str
    expires: float | None = None
    refreshes: float | None = None


def grant_of(grant: GrantFlow) -> GrantView:
    """How it stands."""
    trouble = f" The last attempt failed: {grant.last_error}." if grant.last_error and grant.attempts else ""
    match grant.state:
        case "active":
            mood: Mood = "slow" if grant.attempts or (grant.expires_in_seconds or 1.0) < 0 else "good"
            text = "It is being renewed now." if grant.renewing else f"It renews itself.{trouble}"
            return GrantView("We have access", mood, text, grant.expires_in_seconds, grant.refresh_in_seconds)
        case "needs_authorisation":
            return GrantView("Syncaroo asks for a person", "bad", f"Nothing is fetched until then.{trouble}")
    return GrantView("Not connected yet", "bad", "Nothing is fetched before an operator has connected us to Syncaroo.")
