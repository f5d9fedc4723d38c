"""One address, however its slashes are written: answered directly, never by a redirect (CONTRACT §3)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NoReturn

from aiohttp import web
from yarl import URL

_SLASHES = re.compile("/{2,}")
_TIDIED = web.RequestKey("tidied", bool)


class TidyPaths(web.AbstractResource):
    """Asked when no route fits the path as it came: looks again with slashes collapsed, with and without the last one.

    Register it after all routes. aiohttp walks from a path to its parents, so the root is asked last.
    """

    def __init__(self, router: web.UrlDispatcher) -> None:
        super().__init__()
        self._router = router
        self._with_slash: dict[tuple[str, str], web.AbstractRoute] = {}
        """What was found for a method and a path that only a slash at its end keeps from being the route's."""

    @property
    def canonical(self) -> str:
        return "/"

    async def resolve(self, request: web.Request) -> tuple[web.UrlMappingMatchInfo | None, set[str]]:
        allowed: set[str] = set()
        if _TIDIED in request:
            return None, allowed
        asked = (request.method, request.rel_url.raw_path)
        if asked in self._with_slash:  # as webhooks come
            return web.UrlMappingMatchInfo({}, self._with_slash[asked]), allowed
        for path in _spellings(request.rel_url.raw_path):
            again = request.clone(rel_url=URL.build(path=path, encoded=True))
            again[_TIDIED] = True
            found = await self._router.resolve(again)
            if found.http_exception is None:
                resource = found.route.resource
                if isinstance(resource, web.PlainResource) and asked[1] == f"{resource.canonical}/":
                    self._with_slash[asked] = found.route  # one for each route: there are endless other spellings
                return found, allowed
            if isinstance(found.http_exception, web.HTTPMethodNotAllowed):
                allowed |= found.http_exception.allowed_methods
        return None, allowed

    def raw_match(self, path: str) -> bool:
        return False

    def add_prefix(self, prefix: str) -> NoReturn:
        raise NotImplementedError("it belongs to the root")

    def url_for(self, **kwargs: str) -> NoReturn:
        raise NotImplementedError("it has no address of its own")

    def get_info(self) -> Any:
        return {}

    def __iter__(self) -> Iterator[web.AbstractRoute]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _spellings(path: str) -> list[str]:
    bare = _SLASHES.sub("/", path).rstrip("/") or "/"
    return [spelling for spelling in (bare, f"{bare.rstrip('/')}/") if spelling != path]
