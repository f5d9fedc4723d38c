"""Reading operators' requests and answering in JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec
from aiohttp import hdrs, web

from common.codec import dumps, loads
from ingress.admin.rules import read_name
from ingress.limits import read_body
from ingress.parameters import positive_number, singles
from ingress.problems import problem
from schemas.messages import Json

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Part of a list; `next`, given back as `after`, brings the following part, null: there is none."""

    items: Sequence[T]
    next: str | None


def answer(value: Any, status: int = 200) -> web.Response:
    """A JSON answer that nobody keeps."""
    return web.Response(
        status=status, body=dumps(value), content_type="application/json", headers={hdrs.CACHE_CONTROL: "no-store"}
    )


def done() -> web.Response:
    """204."""
    return web.Response(status=204)


def page_of(items: Sequence[Any], next_cursor: str | None) -> web.Response:
    """One page of a list; `next` goes into `after` for the following one."""
    return answer(Page(items, next_cursor))


def missing(what: str) -> web.Response:
    """404 for a thing that is not there."""
    return problem(404, "/problems/not-found", "Not found", f"There is no such {what}.")


def revoked() -> web.Response:
    """409 for a connection that is not synced any more."""
    detail = "The connection was revoked. The user has to authorize it again first."
    return problem(409, "/problems/connection-revoked", "Connection revoked", detail)


async def read_json(request: web.Request) -> Json:
    """The body.

    Raises:
        BadJson: it is not strict JSON.
    """
    return loads(await read_body(request))


def query_of(request: web.Request) -> dict[str, str]:
    """The query's parameters, each once.

    Raises:
        BadInput: one occurs twice.
    """
    return singles(request.query.items())


def path_name(request: web.Request, name: str) -> str:
    """An id from the address.

    Raises:
        BadInput: it is too long or holds what no store takes.
    """
    return read_name(request.match_info[name], name)


def connection_id_of(request: web.Request) -> int:
    """The connection's number from the address.

    Raises:
        BadInput: it is none.
    """
    return positive_number(request.match_info["connectionId"], "connectionId")
