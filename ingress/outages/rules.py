"""Whether nobody took webhooks for a while. Pure."""

from __future__ import annotations

from datetime import timedelta

AWAY = timedelta(seconds=60)


def was_away(gap: timedelta | None, served: timedelta) -> bool:
    """Whether webhooks found nobody for more than a minute since the last beat of any ingress, `gap` ago.

    `served` is how much of that time this process has been serving, by its own clock and without the times when it was
    stopped. That is all of it when only the store was away; no beat at all is a first start.
    """
    return gap is not None and gap - served > AWAY
