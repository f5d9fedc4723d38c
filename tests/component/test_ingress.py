"""The ingress around its handlers: health, ports, addresses, and clients that are slow, silent, rude or many."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import ValidationError

from common import listen
from common.errors import SettingsError
from common.listen import Listener, is_silent
from ingress.app import Parts, create_app, create_ops_app
from ingress.forwarded import forwarded_middleware
from ingress.health.readiness import Readiness
from ingress.routing import TidyPaths
from tests.component.served import Served, hang_up
from tests.ingress_app import FakeBroker, bearer, settings, webhook
from tests.waiting import until, within


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with Served() as made:
        yield made


# --- health --------------------------------------------------------------------------------------------------------


async def test_alive_and_ready(served: Served) -> None:
    assert await served.get("/healthz") == (200, {"status": "alive"})
    assert await served.get("/readyz/") == (200, {"status": "ready", "store": "down"})


async def test_not_ready_without_the_broker_or_its_queues_or_when_stopping() -> None:
    now = [0.0]
    broker = FakeBroker()
    readiness = Readiness(broker, lambda: now[0])
    assert await readiness.trouble() is None
    broker.down = True
    assert await readiness.trouble() is None, "asked once a second at most"
    now[0] += 1.1
    assert await readiness.trouble() == "broker: down"
    broker.down, broker.missing, now[0] = False, "syncaroo.reconcile.dead", 3.0
    assert "gateway setup" in (await readiness.trouble() or "")
    broker.missing, now[0] = None, 5.0
    assert await readiness.trouble() is None
    readiness.stopping = True
    assert await readiness.trouble() == "stopping"
    assert broker.checks == 4


async def test_readyz_says_why_not(served: Served) -> None:
    served.broker.down = True
    status, body = await served.get("/readyz")
    assert (status, body) == (503, {"status": "unready", "reason": "broker: down", "store": "down"})


async def test_metrics_tell_numbers_and_no_secret(served: Served) -> None:
    assert await served.send() == 200
    async with served.session.get(f"{served.url}/metrics") as response:
        text = await response.text()
    assert 'gateway_webhooks_total{outcome="accepted"} 1.0' in text
    assert "gateway_webhooks_in_flight" in text
    assert bearer()["Authorization"].split()[1] not in text


# --- proxies -------------------------------------------------------------------------------------------------------


async def test_behind_a_proxy_that_is_trusted_the_client_is_whom_it_has_seen() -> None:
    async def whom(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.remote} {await request.text()}")

    for trusted, remote in ((["127.0.0.0/8"], "192.0.2.1"), ([], "127.0.0.1")):
        app = web.Application(middlewares=[forwarded_middleware([ip_network(one) for one in trusted])])
        app.router.add_post("/", whom)
        async with TestClient(TestServer(app, host="127.0.0.1")) as client:
            answer = await client.post("/", data="body", headers={"X-Forwarded-For": "203.0.113.9, 192.0.2.1"})
            assert await answer.text() == f"{remote} body"


async def test_webhooks_and_pages_come_through_a_trusted_proxy() -> None:
    async with Served(trusted_proxies="127.0.0.0/8, ::1/128") as made:
        made.session.headers["X-Forwarded-For"] = "192.0.2.1"
        assert await made.send() == 200
        assert (await made.session.get(f"{made.url}/connect")).status == 200
    with pytest.raises(ValidationError):
        settings(trusted_proxies="10.0.0.0/33")


# --- addresses and ports -------------------------------------------------------------------------------------------


def paths(app: web.Application) -> set[str]:
    return {resource.canonical for resource in app.router.resources() if len(resource)}


async def test_without_an_ops_port_everything_is_on_one_port(served: Served) -> None:
    found = paths(served.app)
    assert {"/healthz", "/readyz", "/metrics", "/update", "/api/update", "/connect", "/confirm"} <= found
    assert {"/api/oauth/authorize", "/api/oauth/token", "/api/check_connection", "/admin/v1/status"} <= found
    assert not [path for path in found if path.endswith("/")], "routes are registered without a trailing slash"


async def test_with_an_ops_port_the_operators_part_is_only_there() -> None:
    chosen = settings(ops_port=65_535)
    parts = Parts(chosen, FakeBroker())
    public, operators = paths(create_app(chosen, parts)), paths(create_ops_app(chosen, parts))
    assert {"/connect", "/confirm", "/update", "/healthz"} <= public
    assert not [path for path in public if path.startswith(("/admin", "/console", "/metrics"))]
    assert {"/metrics", "/healthz", "/admin/v1/status"} <= operators
    assert not [path for path in operators if path.startswith(("/update", "/api", "/connect", "/confirm"))]


async def test_unknown_addresses_and_methods_get_problem_documents(served: Served) -> None:
    for path in ("/nothing", "//nothing//", "/", "/update/x", "/api", "/%2e%2e/x", "/update%2F"):
        status, body = await served.get(path)
        assert (status, body["status"], body["type"]) == (404, 404, "/problems/not-found"), path
    async with served.session.delete(f"{served.url}//healthz//") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET,HEAD")


async def test_an_address_with_its_slash_is_found_again_and_nothing_else_is_kept(served: Served) -> None:
    """However a path is escaped, it is the same address; only the one spelling that Syncaroo uses is remembered."""
    (tidy,) = [one for one in served.app.router.resources() if isinstance(one, TidyPaths)]
    for path in ("/healthz/", "/healthz/", "/health%7A/", "/%68ealthz/", "//healthz/", "/healthz//"):
        assert (await served.get(path))[0] == 200, path
        assert len(tidy._with_slash) == 1
    async with served.session.delete(f"{served.url}/healthz/") as response:
        assert response.status == 405, "of another method"


async def test_nothing_tells_what_answers(served: Served) -> None:
    for path in ("/healthz", "/nothing", "/update"):
        async with served.session.get(served.url + path) as response:
            assert "Server" not in response.headers


async def test_without_the_store_the_rest_says_so(served: Served) -> None:
    assert await served.send() == 200
    async with served.session.get(
        f"{served.url}/admin/v1/connections", headers={"Authorization": "Bearer operator-of-the-tests"}
    ) as no:
        assert (no.status, "Retry-After" in no.headers) == (503, True)
    async with served.session.get(f"{served.url}/api/check_connection/?connectionId=99", headers=bearer()) as no:
        assert no.status == 503


async def test_a_port_that_is_taken_is_a_wrong_setting(served: Served) -> None:
    second = Listener(web.Application(), "127.0.0.1", served.port, "HTTP_PORT")
    with pytest.raises(SettingsError, match="HTTP_PORT: cannot listen there"):
        await second.start()
    await second.close()


# --- clients -------------------------------------------------------------------------------------------------------

TOKEN = bearer()["Authorization"]


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: x\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Content-Length: 2\r\nX: a\rb\r\n",
        "Content-Length: 2\r\nHost: y\r\n",
        f"Content-Length: 2\r\nAuthorization: {TOKEN}\r\n",
        "Content-Length: 2\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n",
        "Content-Length: 2\r\n" + "".join(f"X-{number}: y\r\n" for number in range(300)),
        "Content-Length: 2\r\nX: " + "y" * 20_000 + "\r\n",
        "Content-Length: 999999999\r\n",
        "Content-Length: 2\r\nContent-Encoding: gzip\r\n",
    ],
)
async def test_ambiguous_requests_are_refused(served: Served, head: str) -> None:
    """T-ING-BODY, T-ING-SMUGGLE."""
    answer = await served.raw(f"POST /update HTTP/1.1\r\nHost: x\r\nAuthorization: {TOKEN}\r\n{head}\r\n{{}}".encode())
    assert answer.split()[1] in (b"400", b"401", b"413", b"415", b"431"), answer
    assert served.broker.published == []


async def test_two_thousand_idle_connections_do_not_stop_a_request(served: Served) -> None:
    """T-ING-SLOW."""
    listen.raise_file_limit()
    idle = []
    try:
        for _ in range(20):
            opening = [asyncio.open_connection("127.0.0.1", served.port) for _ in range(100)]
            idle += [writer for _, writer in await asyncio.gather(*opening)]
        began = time.monotonic()
        assert await served.send() == 200
        assert time.monotonic() - began < 1.0
    finally:
        await asyncio.gather(*map(hang_up, idle))


async def test_silent_and_dripping_connections_are_closed_and_working_ones_are_not(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-ING-SLOW."""
    monkeypatch.setattr(listen, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(listen, "SWEEP_SECONDS", 0.05)
    stop = asyncio.Event()
    sweeping = asyncio.create_task(served.listener.close_silent(stop))
    silent, silent_writer = await asyncio.open_connection("127.0.0.1", served.port)
    dripping, dripping_writer = await asyncio.open_connection("127.0.0.1", served.port)
    dripping_writer.write(b"POST /update HTTP/1.1\r\nHost: x\r\nX-Dri")
    served.broker.confirm.clear()
    working = asyncio.create_task(served.send())  # waits for its confirm longer than a silent one may live
    await until(lambda: served.broker.waiting == 1)
    for reader in (silent, dripping):
        with contextlib.suppress(ConnectionError):
            async with within(5):
                assert await reader.read() == b""
    served.broker.confirm.set()
    assert await working == 200
    assert await served.send() == 200, "the same connection, kept alive"
    stop.set()
    await sweeping
    await hang_up(silent_writer)
    await hang_up(dripping_writer)


async def test_a_head_that_drips_on_a_connection_that_had_a_request_is_cut_off(served: Served) -> None:
    """T-ING-SLOW: `KEEPALIVE_SECONDS` of the connection, here shorter, are for it, too."""
    server = served.listener._runner.server
    assert server is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    await until(lambda: len(server.connections) == 1)
    server.connections[0]._keepalive_timeout = 0.5
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"alive")
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Dri")
    with contextlib.suppress(ConnectionError):
        async with within(5):
            assert b"HTTP/1.1" not in await reader.read()
    assert listen.KEEPALIVE_SECONDS <= 10
    await hang_up(writer)


async def test_who_does_not_take_the_answers_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-ING-SLOW: thousands of requests on one connection, and nothing is read; somebody slower than others may."""
    monkeypatch.setattr(listen, "TAKE_SECONDS", 0.5)
    monkeypatch.setattr(listen, "SWEEP_SECONDS", 0.05)
    stop = asyncio.Event()
    sweeping = asyncio.create_task(served.listener.close_silent(stop))
    server = served.listener._runner.server
    assert server is not None
    with socket.create_connection(("127.0.0.1", served.port)) as deaf:
        deaf.setblocking(False)
        asking = asyncio.create_task(_ask_without_end(deaf))
        await until(lambda: any(one.writing_paused for one in server.connections), 20)
        assert await served.send() == 200, "others are answered"
        await until(lambda: not any(one.writing_paused for one in server.connections), 20, "it is cut off")
        with pytest.raises(ConnectionError):
            async with within(5):
                await asking
    assert await served.send() == 200
    stop.set()
    await sweeping


async def test_who_takes_an_answer_slowly_is_not_cut_off() -> None:
    """T-ING-SLOW: only who takes nothing for 30 s is cut off, however much is left."""
    app = web.Application()
    app.router.add_get("/", _much)
    listener = Listener(app, "127.0.0.1", 0, "HTTP_PORT")
    port, loop = await listener.start(), asyncio.get_running_loop()
    server = listener._runner.server
    assert server is not None
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        await loop.sock_connect(slow, ("127.0.0.1", port))
        await loop.sock_sendall(slow, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: any(one.writing_paused for one in server.connections))
        [connection] = server.connections
        transport = connection.transport
        assert transport is not None
        now = 0.0
        for _ in range(5):
            listener._sweep(now)
            left = transport.get_write_buffer_size()
            while transport.get_write_buffer_size() == left > 0:
                assert await loop.sock_recv(slow, 2**16), "cut off"
            now += listen.TAKE_SECONDS - 1
        assert connection.writing_paused, "there is more to take"
        listener._sweep(now)
        assert not transport.is_closing()
        listener._sweep(now + listen.TAKE_SECONDS + 1)
        assert transport.is_closing(), "nothing was taken"
    await listener.close()


async def _much(_: web.Request) -> web.Response:
    return web.Response(body=b"x" * 20 * 2**20)


async def _ask_without_end(connection: socket.socket) -> None:
    while True:
        await asyncio.get_running_loop().sock_sendall(
            connection, b"GET /api/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 10
        )
        await asyncio.sleep(0.01)


async def test_what_silence_is_read_from_still_means_that(served: Served) -> None:
    """aiohttp has no public word for it: when this fails, `is_silent` needs another look at aiohttp."""
    server = served.listener._runner.server
    assert server is not None
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    await until(lambda: len(server.connections) == 1)
    assert is_silent(server.connections[0])
    served.broker.confirm.clear()
    body = json.dumps(webhook())
    writer.write(f"POST /update HTTP/1.1\r\nHost: x\r\nAuthorization: {TOKEN}\r\n".encode())
    writer.write(f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
    await until(lambda: served.broker.waiting == 1)
    assert not is_silent(server.connections[0])
    served.broker.confirm.set()
    await until(lambda: len(served.broker.published) == 1)
    assert not is_silent(server.connections[0])
    await hang_up(writer)


async def test_closing_finishes_what_is_in_hand() -> None:
    """T-TERM."""
    async with Served() as served:
        served.broker.confirm.clear()
        sending = asyncio.create_task(served.send())
        await until(lambda: served.broker.waiting == 1)
        closing = asyncio.create_task(served.listener.close())
        await until(lambda: refuses(served.port), what="the port to be closed")
        assert not sending.done()
        served.broker.confirm.set()
        assert await sending == 200
        await closing


async def refuses(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return True
    await hang_up(writer)
    return False
