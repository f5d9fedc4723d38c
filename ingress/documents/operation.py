"""How an operation of the ingress is described: the words of the table in `operations`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ingress.problems import Problem

Needs = Literal["nothing", "operator", "connection", "client"]


@dataclass(frozen=True)
class Media:
    """A body: its type, and its schema, a model or one written out."""

    type: str
    model: Any


PAGE = Media("text/html", {"type": "string"})
PROBLEM = Media("application/problem+json", Problem)
NOTHING: tuple[Media, ...] = ()
"""No body: what there is to say is in the status and its headers."""


def json(model: Any) -> Media:
    """A JSON body."""
    return Media("application/json", model)


Answer = Media | tuple[Media, ...]


@dataclass(frozen=True)
class Operation:
    """One method of one address. `~` is `API_PATH`; `query` names parameters, those that must be given with a `!`."""

    name: str
    method: str
    path: str
    summary: str
    answers: Mapping[int, Answer]
    needs: Needs = "nothing"
    query: str = ""
    body: Media | None = None
    uses_store: bool = True
    tag: str = "operation"
