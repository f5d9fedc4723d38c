"""Loads the golden transcripts of Syncaroo's guide (`tests/data/guide/`), for tests of stand-in and gateway alike."""

import json
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

FOLDER = Path(__file__).parent / "data" / "guide"


class Transcript(NamedTuple):
    """One message as the guide prints it; `start` is `METHOD URL` of a request, the status of an answer."""

    start: str
    headers: dict[str, str]
    body: str

    @property
    def method(self) -> str:
        return self.start.split()[0]

    @property
    def url(self) -> str:
        return self.start.split()[1]

    @property
    def status(self) -> int:
        return int(self.start)

    @property
    def query(self) -> dict[str, str]:
        """The GET variables, empty ones included."""
        return dict(parse_qsl(urlsplit(self.url).query, keep_blank_values=True))

    @property
    def form(self) -> dict[str, str]:
        """The fields of a form body."""
        return dict(parse_qsl(self.body, keep_blank_values=True))

    @property
    def json(self) -> Any:
        """The JSON body."""
        return json.loads(self.body)


def transcript(name: str) -> Transcript:
    """The transcript of that name (README.md there lists them)."""
    head, _, body = (FOLDER / f"{name}.http").read_text().partition("\n\n")
    start, *headers = head.strip().splitlines()
    return Transcript(start, dict(line.split(": ", 1) for line in headers), body)


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.http"))


def portal() -> dict[str, str]:
    """What the platform tells Syncaroo's developer portal."""
    told: dict[str, str] = json.loads((FOLDER / "portal.json").read_text())
    return told
