"""What the commands print with: colours only on a terminal (`NO_COLOR` is honoured), JSON when asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import typer
from rich.color import ColorSystem
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.style import Style
from rich.table import Table

from common.foreign import harmless
from common.words import things

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]

UNFOLDED = 2000
"""Columns that no table needs: what reads a pipe reads lines."""

Piece = tuple[str, str]
"""A text and its style, such as `bold`; empty for none."""

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """The value, indented, and nothing else on stdout."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns as wide as they need; piped, a row is always one line; texts are not read as markup."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else _plain(cell) for cell in row))
    (out if out.is_terminal else Console(highlight=False, width=UNFOLDED)).print(table)


def counted(number: int, thing: str, one: str = "is", many: str = "are") -> str:
    """`1 listing is`, `2 listings are`."""
    return f"{things(number, thing)} {one if number == 1 else many}"


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; what it yields is told how many are done."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def write_lines(lines: Iterable[Sequence[Piece]]) -> None:
    """Many lines at once, each as it is: rich would take fifteen times as long for them."""
    colour = out.is_terminal and out.color_system is not None and not out.no_color
    text = "".join(f"{_painted(line) if colour else _bare(line)}\n" for line in lines)
    try:
        out.file.write(text)
        out.file.flush()
    except BrokenPipeError:  # its reader has seen enough
        out.on_broken_pipe()


def _bare(line: Sequence[Piece]) -> str:
    return "".join(text for text, _ in line)


def _painted(line: Sequence[Piece]) -> str:
    return "".join(_style(style).render(text, color_system=ColorSystem.STANDARD) for text, style in line)


@functools.cache
def _style(words: str) -> Style:
    return Style.parse(words)


def _plain(cell: Any) -> str:
    text = ("no", "yes")[cell] if isinstance(cell, bool) else harmless(str(cell))
    return text.replace("[", r"\[")
