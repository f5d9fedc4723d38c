"""ops.prove.proxy itself: a tool that misbehaves otherwise than told would blame the product."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ops.prove.proxy import Mode, Proxy
from tests.waiting import until


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """In front of a server that says everything twice."""

    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line + line)
        writer.close()

    server = await asyncio.start_server(twice, "127.0.0.1", 0)
    async with server, Proxy(*server.sockets[0].getsockname()) as made:
        yield made


async def test_passes(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await _ask(reader, writer, b"a\n") == b"a\na\n"
    assert (proxy.accepted, proxy.sent, proxy.answered) == (1, 2, 4)
    writer.close()


async def test_a_blackhole_holds_everything_until_it_ends(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    await _ask(reader, writer, b"a\n")
    proxy.mode = Mode.BLACKHOLE
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_ask(reader, writer, b"b\n"), 0.2)
    assert proxy.sent == 2

    proxy.mode = Mode.PASS

    assert await reader.readexactly(4) == b"b\nb\n"
    writer.close()


async def test_a_reset_ends_old_and_new_connections(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    await _ask(reader, writer, b"a\n")

    proxy.mode = Mode.RESET

    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await _ask(reader, writer, b"a\n")


async def test_swallowed_answers_reached_the_server(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.mode = Mode.SWALLOW_ANSWERS
    writer.write(b"a\n")
    await until(lambda: proxy.sent == 2)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)

    proxy.mode = Mode.PASS

    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    assert proxy.answered == 0


async def test_swallowed_requests_never_reach_the_server(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    await _ask(reader, writer, b"a\n")
    proxy.mode = Mode.SWALLOW_REQUESTS
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_ask(reader, writer, b"b\n"), 0.2)
    assert proxy.sent == 2

    proxy.mode = Mode.PASS

    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)


@pytest.mark.parametrize(("mode", "arrives"), [(Mode.CUT_ANSWERS, b"ab"), (Mode.CUT_REQUESTS, b"")])
async def test_what_is_cut_arrives_by_half_and_ends_in_good_order(proxy: Proxy, mode: Mode, arrives: bytes) -> None:
    """Half of a question is no line, so that nothing comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    await _ask(reader, writer, b"a\n")
    proxy.mode = mode
    writer.write(b"ab\n")
    assert await reader.read() == arrives + (b"\n" if arrives else b"")
    writer.close()
    proxy.mode = Mode.PASS
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await _ask(reader, writer, b"c\n") == b"c\nc\n"
    writer.close()


async def test_a_delay_delays(proxy: Proxy) -> None:
    proxy.delay = 0.05
    proxy.mode = Mode.DELAY
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    began = asyncio.get_running_loop().time()
    await _ask(reader, writer, b"a\n")
    assert asyncio.get_running_loop().time() - began >= 0.1
    writer.close()


async def test_a_reset_after_so_many_bytes(proxy: Proxy) -> None:
    proxy.reset_after = 3
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    await _ask(reader, writer, b"a\n")
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await _ask(reader, writer, b"b\n")


def test_an_address_by_way_of_the_proxy() -> None:
    proxy = Proxy("h", 1)
    proxy.port = 7
    assert proxy.url("amqp://u:p@h:1/v?x=1") == "amqp://u:p@127.0.0.1:7/v?x=1"
    assert proxy.url("http://h:1/v") == "http://127.0.0.1:7/v"


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> bytes:
    writer.write(line)
    return await reader.readexactly(2 * len(line))
