"""Tells the story as it goes: a spinner and ticks on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from ops.terminal import out


class Step:
    """One step that is under way; `note` says what came of it."""

    def __init__(self) -> None:
        self.said = ""

    def note(self, text: str) -> None:
        self.said = f": {text}"


class Teller:
    """Writes to stdout, line by line."""

    def __init__(self) -> None:
        self._terminal = out.is_terminal

    def heading(self, text: str) -> None:
        out.print(f"\n{text}", style="bold", markup=False)

    def line(self, text: str = "") -> None:
        out.print(text, markup=False)

    @contextmanager
    def step(self, text: str) -> Iterator[Step]:
        """Shown as under way, then as done; when it fails, what it was is left on the screen."""
        step, began = Step(), time.monotonic()
        try:
            with out.status(text) if self._terminal else nullcontext():
                yield step
        except BaseException:
            self._done("✗", "red", text)
            raise
        self._done("✓", "green", f"{text}{step.said}  ({time.monotonic() - began:.1f} s)")

    def _done(self, mark: str, style: str, text: str) -> None:
        out.print(mark, style=style, end=" ")
        out.print(text, markup=False)
