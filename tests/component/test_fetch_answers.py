"""The client of Syncaroo's API against servers, names and proxies that mean no good, on loopback."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from common.errors import ForbiddenHost, UpstreamFailed, UpstreamRefused
from common.urls import AllowedHosts
from tests.component.fetch_parts import Api, client_of, serving
from tests.forward_proxy import ForwardProxy
from tests.waiting import within
from workers.fetch import addresses, client
from workers.fetch.answers import check_status, parse_page
from workers.fetch.client import SyncarooApi
from workers.token.client import TokenClient
from workers.token.rules import NoReply, Reply

PATH = "/v1/locations/5"
GOOD = b'{"data":{"ID":"5"}}'
MIB = 1024 * 1024


@pytest.fixture(name="api")
async def _api() -> AsyncIterator[Api]:
    async with serving() as api:
        yield api


def body(raw: bytes, **headers: str) -> Any:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=raw, headers={"Content-Type": "application/json", **headers})

    return answer


async def ask(api: Api) -> Any:
    """What the answer at `PATH` comes to: the items of its page, or the error."""
    async with client_of(api) as one:
        response = await one.get(api.base + PATH, "secret")
    check_status(response, datetime.now(UTC))
    return parse_page(response, api.base + PATH).items


async def test_compressed_answers_are_read(api: Api) -> None:
    for encoding, raw in (("gzip", gzip.compress(GOOD)), ("deflate", zlib.compress(GOOD))):
        api.answers[PATH] = body(raw, **{"Content-Encoding": encoding})
        assert await ask(api) == [{"ID": "5"}]


@pytest.mark.parametrize("members", [1, 50])
async def test_a_bomb_takes_no_memory(api: Api, members: int) -> None:
    """T-API-BODY: 200 kB that would be 200 MiB; what counts is the size when unpacked, and it is unpacked in pieces."""
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(MIB)
    each = b"".join(packer.compress(zeros) for _ in range(200 // members)) + packer.flush()
    api.answers[PATH] = body(each * members, **{"Content-Encoding": "gzip"})
    tracemalloc.start()
    try:
        with pytest.raises(UpstreamRefused, match="too_large"):
            await ask(api)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 * MIB


async def test_a_stream_without_end_is_left(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-API-BODY: a fast one at the cap, a slow one when the time is up."""
    monkeypatch.setattr(client, "MAX_PAGE_BYTES", 100_000)
    monkeypatch.setattr(client, "TIMEOUT", aiohttp.ClientTimeout(total=0.5))
    left = asyncio.Event()

    async def endless(request: web.Request, pause: float = 0.0) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * (10 if pause else 10_000))
                await asyncio.sleep(pause)
        finally:
            left.set()

    api.answers[PATH] = endless
    with pytest.raises(UpstreamRefused, match="too_large"):
        await ask(api)
    async with within(10):
        await left.wait()
    api.answers[PATH] = lambda request: endless(request, 0.05)
    with pytest.raises(UpstreamFailed):
        await ask(api)


CUT = [
    body(gzip.compress(GOOD)[:-12], **{"Content-Encoding": "gzip"}),
    body(gzip.compress(GOOD)[:15], **{"Content-Encoding": "gzip"}),
    body(zlib.compress(GOOD)[:-6], **{"Content-Encoding": "deflate"}),
    body(b"no gzip at all", **{"Content-Encoding": "gzip"}),
    body(gzip.compress(GOOD)[:-8] + b"12345678", **{"Content-Encoding": "gzip"}),
    body(GOOD[:-4]),
]


@pytest.mark.parametrize("answer", CUT)
async def test_what_is_cut_off_or_garbled_on_its_way_passes(api: Api, answer: Any) -> None:
    """T-API-BODY, T-API-5XX: truncated inside what is compressed, where no length shows it."""
    api.answers[PATH] = answer
    with pytest.raises(UpstreamFailed):
        await ask(api)


async def test_an_answer_that_ends_before_its_length_or_its_last_chunk_passes(api: Api) -> None:
    """T-API-5XX."""

    async def cut(request: web.Request, **how: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", **how})
        await response.prepare(request)
        await response.write(GOOD)
        assert request.transport is not None
        request.transport.close()
        return response

    for headers in ({"Content-Length": "100"}, {}):
        api.answers[PATH] = lambda request, headers=headers: cut(request, **headers)
        with pytest.raises(UpstreamFailed):
            await ask(api)


@pytest.mark.parametrize(
    ("raw", "headers", "reason"),
    [
        (GOOD, {"Content-Type": "text/html"}, "not_json"),
        (b"<html>maintenance</html>", {}, "not_json"),
        (b'{"data":[NaN]}', {}, "not_json"),
        (b'{"data":[1e999]}', {}, "not_json"),
        (b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", {}, "not_json"),
        (b'{"data":["\xff"]}', {}, "not_json"),
        (b'{"data":null}', {}, "bad_shape"),
        (b'{"data":7}', {}, "bad_shape"),
        (b'{"items":[]}', {}, "bad_shape"),
        (b"[]", {}, "bad_shape"),
    ],
)
async def test_answers_that_will_not_get_better_are_final(
    api: Api, raw: bytes, headers: dict[str, str], reason: str
) -> None:
    """T-API-BODY."""
    api.answers[PATH] = body(raw, **headers)
    with pytest.raises(UpstreamRefused) as refused:
        await ask(api)
    assert refused.value.reason == reason


async def test_no_redirect_is_followed_anywhere(api: Api) -> None:
    """T-URL-REDIRECT: the token stays with the host that was asked."""
    async with serving() as evil:
        for place in (evil.base, f"//{evil.host}/x", "/v1/other", f"http://{api.host}@{evil.host}/"):
            for status in (301, 302, 303, 307, 308):

                async def redirect(_: web.Request, status: int = status, place: str = place) -> web.Response:
                    headers = {"Location": place, "Refresh": f"0; url={place}", "Link": f"<{place}>; rel=next"}
                    return web.Response(status=status, headers=headers)

                api.answers[PATH] = redirect
                with pytest.raises(UpstreamRefused, match="redirected"):
                    await ask(api)
        assert evil.seen == []
    assert set(api.calls) == {PATH}


class Names(AbstractResolver):
    """A name server in other hands: every name leads to `addresses`, or to none."""

    addresses: tuple[str, ...] = ()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if not self.addresses:
            raise OSError("no such name")
        return [
            ResolveResult(hostname=host, host=one, port=port, family=socket.AF_INET, proto=0, flags=0)
            for one in self.addresses
        ]

    async def close(self) -> None:
        """Nothing to release."""


@pytest.mark.parametrize(
    "leads_to", [("127.0.0.1",), ("10.0.0.1",), ("169.254.169.254",), ("93.184.216.34", "127.0.0.1"), ("100.64.0.1",)]
)
async def test_an_allowed_name_that_leads_inside_is_not_called(
    api: Api, leads_to: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-URL-REBIND: whoever owns the name must not have our token sent into our network."""
    monkeypatch.setattr(Names, "addresses", leads_to)
    monkeypatch.setattr(addresses, "DefaultResolver", Names)
    port = api.host.rpartition(":")[2]
    allowed = AllowedHosts([f"api.test:{port}"], allow_http=True)
    async with SyncarooApi(allowed, allow_private=False, concurrency=1) as strict:
        with pytest.raises(ForbiddenHost):
            await strict.get(f"http://api.test:{port}{PATH}", "secret")
    assert api.seen == []


async def test_an_allowed_address_inside_is_not_called_either(api: Api) -> None:
    """T-URL-REBIND: no name is resolved then."""
    port = api.host.rpartition(":")[2]
    hosts = [f"127.0.0.1:{port}", f"[::ffff:127.0.0.1]:{port}", f"localhost:{port}"]
    async with SyncarooApi(AllowedHosts(hosts, allow_http=True), allow_private=False, concurrency=1) as strict:
        for host in hosts:
            with pytest.raises(ForbiddenHost):
                await strict.get(f"http://{host}{PATH}", "secret")
    assert api.seen == []


async def test_no_name_no_port_no_certificate_passes(
    api: Api, monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    """T-API-5XX: none of it is an answer."""
    monkeypatch.setattr(addresses, "DefaultResolver", Names)
    async with SyncarooApi(AllowedHosts(["api.test"], allow_http=True), allow_private=False, concurrency=1) as nowhere:
        with pytest.raises(UpstreamFailed, match="DNS"):
            await nowhere.get(f"http://api.test{PATH}", "secret")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
        async with client_of(Api(f"http://{closed}")) as refused:
            with pytest.raises(UpstreamFailed):
                await refused.get(f"http://{closed}{PATH}", "secret")
    server = await tls(api, certificate)
    for host in (f"127.0.0.1:{server.port}", api.host):  # a certificate that nobody vouches for; no TLS at all
        async with client_of(Api(f"http://{host}")) as untrusting:
            with pytest.raises(UpstreamFailed):
                await untrusting.get(f"https://{host}{PATH}", "secret")
    await server.close()
    assert api.seen == []


# --- the way out ----------------------------------------------------------------------------------------------------


@pytest.fixture(name="environment")
async def _environment(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ForwardProxy]:
    """A proxy that the environment names in every way there is."""
    async with ForwardProxy() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            for spelling in (name, name.lower()):
                monkeypatch.setenv(spelling, f"http://127.0.0.1:{proxy.port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield proxy


def token_client(base: str, proxy: SecretStr | None = None) -> TokenClient:
    return TokenClient(
        base_url=base, client_id="id", client_secret="s3cret", redirect_uri="https://x.test", proxy=proxy
    )


async def test_proxies_of_the_environment_are_ignored(api: Api, environment: ForwardProxy) -> None:
    api.answers = {PATH: body(GOOD), "/api/token": {}}
    assert await ask(api) == [{"ID": "5"}]
    assert isinstance(await token_client(api.base).refresh("token"), Reply)
    assert environment.heads == []


async def test_calls_go_through_the_egress_proxy_when_there_is_one(api: Api, environment: ForwardProxy) -> None:
    """EGRESS_PROXY: both to the API and to the token endpoint, with its own name and password, which stay there."""
    api.answers = {f"{PATH}?x=%2F": body(GOOD), "/api/token": {}}
    async with ForwardProxy() as proxy:
        way = SecretStr(f"http://me:p%40ss@127.0.0.1:{proxy.port}")
        async with client_of(api, allow_private=False, proxy=way) as one:
            assert (await one.get(f"{api.base}{PATH}?x=%2F", "secret")).status == 200
            with pytest.raises(ForbiddenHost):
                await one.get("http://127.0.0.1:1/", "secret")
        assert isinstance(await token_client(api.base, way).refresh("token"), Reply)
    assert [head.partition(" HTTP")[0] for head in proxy.heads] == [
        f"GET {api.base}{PATH}?x=%2F", f"POST {api.base}/api/token",
    ]  # fmt: skip
    assert all("Proxy-Authorization: Basic bWU6cEBzcw==" in head for head in proxy.heads)
    assert "Bearer secret" in str(api.seen[0])
    assert environment.heads == []


async def test_through_a_tunnel_the_proxy_sees_no_token(
    api: Api, certificate: Path, environment: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EGRESS_PROXY: https is end to end."""
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", ssl.create_default_context(cafile=certificate))
    api.answers = {PATH: body(GOOD), "/api/token": {}}
    server = await tls(api, certificate)
    host = f"127.0.0.1:{server.port}"
    async with ForwardProxy() as proxy:
        way = SecretStr(f"http://127.0.0.1:{proxy.port}")
        async with client_of(Api(f"http://{host}"), allow_private=False, proxy=way) as one:
            assert (await one.get(f"https://{host}{PATH}", "secret")).body == GOOD
        assert isinstance(await token_client(f"https://{host}", way).refresh("token"), Reply)
    await server.close()
    assert [head.partition(" HTTP")[0] for head in proxy.heads] == [f"CONNECT {host}"] * 2
    assert "secret" not in "".join(proxy.heads)
    assert environment.heads == []


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_a_proxy_that_lets_nobody_out_is_trouble_that_passes(api: Api, status: int) -> None:
    """And the refresh token has not been sent."""
    async with ForwardProxy(status=status) as proxy:
        way = SecretStr(f"http://me:hidden@127.0.0.1:{proxy.port}")
        async with client_of(api, proxy=way) as one:
            with pytest.raises(UpstreamFailed) as failed:
                await one.get(f"https://{api.host}{PATH}", "secret")
        reply = await token_client(f"https://{api.host}", way).refresh("token")
    assert isinstance(reply, NoReply)
    assert not reply.sent
    assert "hidden" not in repr(failed.value) + repr(reply)
    assert api.seen == []


# --- certificates ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="certificate")
def _certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path: Path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


async def tls(api: Api, certificate: Path) -> TestServer:
    """The same API behind https, on a port of its own."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = TestServer(app, scheme="https", host="127.0.0.1")
    await server.start_server(ssl=context)
    return server
