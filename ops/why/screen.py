"""The story as lines of a screen: what the listing is now, then how it came to be so. Pure but for the colours."""

from __future__ import annotations

from datetime import datetime

from rich.text import Text

from ops.why.ask import Answers
from ops.why.head import head
from ops.why.timeline import timeline


def screen(answers: Answers, now: datetime, width: int = 80) -> list[Text]:
    """All lines; `now` is the reader's clock, `width` what a line should hold."""
    return [*head(answers, now, width), Text(), *timeline(answers, width)]
