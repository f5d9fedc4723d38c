"""What no ledger adds up: answers to webhooks, losses of our access, and what logs call errors. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise

from common.codec import loads
from common.errors import GatewayError
from ops.ledger import Evidence, Json, codes_in_doubt, may_be_lost
from sandbox.records import WebhookRecord

ANSWERED_SECONDS = 5.0
"""In so long a webhook is answered by whoever runs and is heard."""
MAY_ANSWER = frozenset({None, 401, 503})
"""To a webhook that is not accepted: nothing, as nobody was there; that its token is none; that somebody is away."""
REFUSED = "connect.refused"
"""What a log says of a code that Syncaroo did not take."""
LOST = "needs_authorisation"
_UNCAUGHT = re.compile(r"^Traceback|never retrieved|never awaited")

Intervals = Sequence[tuple[int, int]]
"""From and to which number of the stand-in's counter."""


def odd_answers(webhooks: Iterable[WebhookRecord], unheard: Intervals, unfit: Intervals, well: int) -> Iterator[str]:
    """Answers to webhooks for which there was no reason: for 503 there always may be one, until all is well.

    The ingress could not answer while it was `unheard`, and tokens were wrong while they were `unfit`; from number
    `well` on nothing is wrong any more.
    """
    for one in webhooks:
        if one.lost:
            continue
        seconds = (one.answered_at or one.sent_at) - one.sent_at
        sent = datetime.fromtimestamp(one.sent_at, UTC)
        told = f"#{one.order_sent}, sent at {sent:%T}, was answered {one.status} {one.error}".rstrip()
        is_accepted = one.status is not None and 200 <= one.status < 300
        if (one.status is None or seconds > ANSWERED_SECONDS) and not _among(one, unheard):
            yield f"{told} after {seconds:.1f} s"
        elif not is_accepted and (one.status not in MAY_ANSWER or one.order_sent > well):
            yield told
        elif one.status == 401 and not _among(one, unfit):
            yield f"{told}, and its token was right"


def _among(one: WebhookRecord, intervals: Intervals) -> bool:
    return any(one.order_sent <= until and since <= (one.order_answered or until) for since, until in intervals)


def odd_losses(evidence: Evidence, refused: int) -> Iterator[str]:
    """A refresh token works once: whoever could not read the answer has to be let in by a person, and nobody else.

    So it is with codes, of which so many were `refused`.
    """
    told = states(evidence.events)
    lost = told.count(LOST)
    if any(one == other == LOST for one, other in pairwise(told)) or told[-1:] == [LOST]:
        yield f"our access was told to be {', '.join(told)}"
    if lost > (reasons := may_be_lost(evidence)):
        yield f"access to Syncaroo was lost {lost} times, for {reasons} answers that did not come"
    if refused > (reasons := codes_in_doubt(evidence)):
        yield f"{refused} codes were refused, for {reasons} answers that did not come"


def states(events: Iterable[Json]) -> list[str]:
    """What subscribers heard of our access to Syncaroo, each change once."""
    changes = {one["id"]: str(one["data"]["state"]) for one in events if one["type"] == "grant.changed"}
    return list(changes.values())


def errors(log: str) -> Iterator[str]:
    """The events that a log calls errors, and what Python says on its own."""
    for line in log.splitlines():
        said = _read(line)
        if said is None:
            if _UNCAUGHT.search(line):
                yield line
        elif said.get("level") in ("error", "critical"):
            yield str(said.get("event"))


def _read(line: str) -> dict[str, object] | None:
    try:
        said = loads(line.encode())
    except GatewayError:
        return None
    return said if isinstance(said, dict) else None
