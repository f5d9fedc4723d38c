"""What git knows of the kept schemas: everything that each of them has said since its first commit."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from common.errors import GatewayError
from schemas.catalogue import is_place
from schemas.keeping import History

WITHDRAWN = "withdrawn.txt"
"""Beside the schemas: states of files (git's names of their contents) that nobody has ever read by."""

_STATE = re.compile(r"^:\d+ \d+ [0-9a-f]+ ([0-9a-f]+) [AM]\t(.+)\.json$", re.MULTILINE)
_SECONDS = 60


class NoHistory(GatewayError):
    """There is none here to compare with; the text says why."""


def history_of(folder: Path) -> History:
    """The states of every schema below the folder in all commits that led here, those that are withdrawn aside.

    A file's name is its promise, so a schema that was moved is one that is gone.

    Raises:
        NoHistory: no git, no checkout, a shallow one, or no commit has such files.
    """
    if _git(folder, "rev-parse", "--is-shallow-repository").strip() == b"true":
        raise NoHistory("the clone is shallow")
    states: dict[str, list[str]] = {}
    withdrawn = _withdrawn(folder)
    for blob, place in _states(folder):
        if is_place(place) and blob not in withdrawn:
            states.setdefault(place, []).append(blob)
    if not states:
        raise NoHistory("no commit has schemas here")
    texts = _texts(folder, {blob for blobs in states.values() for blob in blobs})
    return {f"{place}.json": [texts[blob] for blob in blobs] for place, blobs in states.items()}


def _states(folder: Path) -> list[tuple[str, str]]:
    """Contents and places, the oldest first; also those that lived only between two merges."""
    flags = ("--full-history", "-m", "--no-renames", "--diff-filter=AM", "--raw", "--no-abbrev", "--reverse")
    told = _git(folder, "log", *flags, "--relative", "--format=", "HEAD", "--", ".")
    return list(dict.fromkeys(_STATE.findall(told.decode())))


def _withdrawn(folder: Path) -> set[str]:
    path = folder / WITHDRAWN
    lines = path.read_text().splitlines() if path.exists() else []
    return {line.split()[0] for line in lines if line.strip() and not line.startswith("#")}


def _texts(folder: Path, blobs: Iterable[str]) -> dict[str, str]:
    asked = "".join(f"{blob}\n" for blob in blobs)
    return dict(_contents(_git(folder, "cat-file", "--batch", stdin=asked.encode())))


def _contents(batch: bytes) -> Iterator[tuple[str, str]]:
    """What `git cat-file --batch` prints: name, kind and size in a line, the content, a newline."""
    while batch:
        head, _, rest = batch.partition(b"\n")
        blob, _kind, size = head.decode().split()
        yield blob, rest[: int(size)].decode()
        batch = rest[int(size) + 1 :]


def _git(folder: Path, *words: str, stdin: bytes = b"") -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], input=stdin, capture_output=True, timeout=_SECONDS, check=True
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").splitlines() or [f"exit code {error.returncode}"]
        raise NoHistory(f"git: {lines[0]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoHistory(f"git: {error}") from error
    return done.stdout
