"""GET to Syncaroo's API: what is sent is the guide's, what comes back is bounded, the token stays where it may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from common.errors import ForbiddenHost, UpstreamFailed, UpstreamRefused
from common.urls import AllowedHosts
from tests.guide import transcript
from workers.fetch import client
from workers.fetch.answers import parse_page
from workers.fetch.client import SyncarooApi


@asynccontextmanager
async def serving(answer: Any) -> AsyncIterator[tuple[SyncarooApi, str, list[web.Request]]]:
    """An API behind `answer`, a client that may go there, and the requests that came."""
    seen: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        answered: web.StreamResponse = await answer(request)
        return answered

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    server = TestServer(app)
    await server.start_server()
    base = str(server.make_url("")).rstrip("/")
    allowed = AllowedHosts([f"{server.host}:{server.port}"], allow_http=True)
    try:
        async with SyncarooApi(allowed, allow_private=True, concurrency=4) as api:
            yield api, base, seen
    finally:
        await server.close()


async def plain(_: web.Request) -> web.Response:
    return web.json_response(transcript("api-answer").json)


async def test_the_request_is_the_guides_and_its_answer_is_understood() -> None:
    guide = transcript("api-request")
    async with serving(plain) as (api, base, seen):
        response = await api.get(f"{base}/v1/locations/1", "secret")
    for name, value in guide.headers.items():
        if name.lower() not in ("authorization", "host"):
            assert seen[0].headers[name] == value
    assert seen[0].headers["Authorization"] == "Bearer secret"
    page = parse_page(response, base)
    assert page.items == transcript("api-answer").json["data"]
    assert (page.current, page.count) == (1, 1)


async def test_a_prepared_link_arrives_byte_for_byte() -> None:
    """T6."""
    async with serving(plain) as (api, base, seen):
        await api.get(f"{base}/v1/locations?cursor=a%2Fb%3D&x=%C3%A9", "secret")
    assert seen[0].raw_path == "/v1/locations?cursor=a%2Fb%3D&x=%C3%A9"


async def test_redirects_are_not_followed() -> None:
    """A10, T-URL-REDIRECT."""

    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/other"})

    async with serving(elsewhere) as (api, base, seen):
        assert (await api.get(f"{base}/v1/locations/1", "secret")).status == 302
    assert len(seen) == 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.2:1/x", "http://evil.test/x", "http://u:p@{host}/x", "http://{host}1/x"]
)
async def test_the_token_goes_nowhere_else(url: str) -> None:
    """CONTRACT §5.5: nothing is sent, whatever the link says."""
    async with serving(plain) as (api, base, seen):
        with pytest.raises(ForbiddenHost):
            await api.get(url.replace("{host}", base.removeprefix("http://")), "secret")
    assert seen == []


async def test_without_permission_http_is_refused() -> None:
    async with serving(plain) as (_, base, seen):
        allowed = AllowedHosts([base.removeprefix("http://")], allow_http=False)
        async with SyncarooApi(allowed, allow_private=False, concurrency=1) as strict:
            with pytest.raises(ForbiddenHost):
                await strict.get(f"{base}/x", "secret")
    assert seen == []


async def test_a_page_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A12."""
    monkeypatch.setattr(client, "MAX_PAGE_BYTES", 1000)

    async def large(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 2000)

    async with serving(large) as (api, base, _):
        with pytest.raises(UpstreamRefused, match="too_large"):
            await api.get(f"{base}/v1/locations/1", "secret")


async def test_what_breaks_off_or_never_comes_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A9, A11: no answer is no verdict, and the error tells neither URL nor token."""

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with serving(cut) as (api, base, _):
        with pytest.raises(UpstreamFailed) as broken:
            await api.get(f"{base}/v1/locations/1?code=hidden", "secret")
    assert "secret" not in repr(broken.value)
    assert "hidden" not in str(broken.value)
    assert broken.value.__cause__ is None

    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(client, "TIMEOUT", aiohttp.ClientTimeout(total=0.2))
    async with serving(silent) as (api, base, _):
        with pytest.raises(UpstreamFailed):
            await api.get(f"{base}/v1/locations/1", "secret")
