"""Requests that nobody well-meaning sends, byte for byte, and a way to send them.

Each of them carries or is followed by a whole webhook of a connection of its own, with a token that is good: what is
read out of a request that was refused would be published under that connection's number.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tests.ingress_app import bearer, webhook

CHUNKED = b"Transfer-Encoding: chunked\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
"""The last request of a connection: it is answered, and the connection ends."""
_STATUS = re.compile(rb"HTTP/[0-9]\.[0-9] ([0-9]{3}) [^\r\n]*\r\n")


@dataclass(frozen=True)
class Webhooks:
    """Requests with the webhook of one connection."""

    authorization: bytes
    body: bytes

    @classmethod
    def of(cls, connection_id: int, key: str) -> Webhooks:
        """`key` signs the token."""
        token = bearer(connection_id, key=key)["Authorization"]
        return cls(token.encode(), json.dumps(webhook(connectionId=connection_id)).encode())

    def request(
        self,
        line: bytes = b"POST /update HTTP/1.1",
        heads: bytes = b"",
        body: bytes | None = None,
        *,
        host: bytes = b"Host: x\r\n",
        length: bool = True,
    ) -> bytes:
        """A request with further headers; `length`: with the Content-Length that its body has."""
        body = self.body if body is None else body
        told = b"Content-Length: %d\r\n" % len(body) if length else b""
        return line + b"\r\n" + host + b"Authorization: " + self.authorization + b"\r\n" + heads + told + b"\r\n" + body

    def chunks(self, size: bytes | None = None, end: bytes = b"0\r\n\r\n") -> bytes:
        """The body as one chunk."""
        return (b"%x" % len(self.body) if size is None else size) + b"\r\n" + self.body + b"\r\n" + end


def refused(webhooks: Webhooks) -> Mapping[str, bytes]:
    """By name, what must get an answer of 4xx, or none, and change nothing."""
    return {
        **_of_two_lengths(webhooks),
        **_of_odd_lengths(webhooks),
        **_of_odd_chunks(webhooks),
        **_of_odd_lines(webhooks),
        **_of_odd_headers(webhooks),
        **_of_odd_targets(webhooks),
        **_of_other_protocols(webhooks),
        **_of_odd_bodies(webhooks),
    }


def unusual(webhooks: Webhooks) -> Mapping[str, tuple[bytes, int]]:
    """By name, what leaves no doubt and is served as any other: how many webhooks each of them is."""
    request, good = webhooks.request, webhooks.request()
    upgrade = b"Connection: Upgrade\r\nUpgrade: %s\r\n"
    return {
        "two requests at once": (good * 2, 2),
        "blank lines before": (b"\r\n\r\n" + good, 1),
        "HTTP/1.0": (good.replace(b"HTTP/1.1", b"HTTP/1.0"), 1),
        "no version": (request(b"POST /update"), 1),
        "two blanks in its line": (request(b"POST  /update HTTP/1.1"), 1),
        "an escaped letter": (request(b"POST /%75pdate HTTP/1.1"), 1),
        "a query": (request(b"POST /update?x=1;y=%ff HTTP/1.1"), 1),
        "a whole URL": (request(b"POST http://evil.test:8443/update HTTP/1.1"), 1),
        "a chunk with an extension": (
            request(heads=CHUNKED, body=webhooks.chunks(b"%x;a=b" % len(webhooks.body)), length=False),
            1,
        ),
        "a trailer that is a header": (
            request(heads=CHUNKED, body=webhooks.chunks(end=b"0\r\nAuthorization: Bearer x\r\n\r\n"), length=False),
            1,
        ),
        "100 headers": (request(heads=b"".join(b"X-%d: y\r\n" % number for number in range(100))), 1),
        "bytes in a value": (request(heads=b"X: \xff\xfe\r\nContent-Type: \xff; charset=\xff\r\n"), 1),
        "a list of proxies that is none": (request(heads=b"X-Forwarded-For: \xff,,[::, a%z, 1.2.3.4:99999\r\n"), 1),
        "a trace that is none": (request(heads=b"traceparent: \xff\r\ntracestate: \xff\r\n"), 1),
        "Expect: 100-continue": (request(heads=b"Expect: 100-continue\r\n"), 1),
        "an upgrade to a websocket": (request(heads=upgrade % b"websocket") + good, 2),
        "an upgrade to h2c": (request(heads=upgrade % b"h2c"), 1),
        "after a 404 with a body": (request(b"POST /nothing HTTP/1.1", body=b"x" * 1000) + good, 1),
        "after a 413 with its body": (request(body=b" " * 300_000) + good, 1),
        "after a 413 in chunks": (
            request(heads=CHUNKED, body=b"493e0\r\n" + b" " * 300_000 + b"\r\n0\r\n\r\n", length=False) + good,
            1,
        ),
    }


def _of_two_lengths(webhooks: Webhooks) -> dict[str, bytes]:
    request, good = webhooks.request, webhooks.request()
    ended = b"0\r\n\r\n" + good
    return {
        "CL.TE": request(heads=CHUNKED, body=ended),
        "TE.CL": request(heads=CHUNKED + b"Content-Length: 5\r\n", body=ended, length=False),
        "TE.TE, one of them identity": request(heads=CHUNKED + b"Transfer-Encoding: identity\r\n", body=ended),
        "TE: chunked, twice": request(heads=CHUNKED * 2, body=ended, length=False),
        "TE: chunked, chunked": request(heads=b"Transfer-Encoding: chunked, chunked\r\n", body=ended, length=False),
        "TE: chunked before another": request(heads=b"Transfer-Encoding: chunked, x\r\n", body=ended, length=False),
        "TE with a blank before its colon": request(heads=b"Transfer-Encoding : chunked\r\n", body=ended),
        "TE after a vertical tab": request(heads=b"Transfer-Encoding:\x0bchunked\r\n", body=ended),
        "TE: xchunked": request(heads=b"Transfer-Encoding: xchunked\r\n", body=ended),
        "TE: identity": request(heads=b"Transfer-Encoding: identity\r\n", body=ended, length=False),
        "TE in HTTP/1.0": request(b"POST /update HTTP/1.0", CHUNKED, ended, length=False),
        "TE behind a folded line": request(heads=b"X: y\r\n Transfer-Encoding: chunked\r\n", body=ended),
        "TE behind a bare CR": request(heads=b"X: y\rTransfer-Encoding: chunked\r\n", body=ended),
        "TE behind a bare LF": request(heads=b"X: y\nTransfer-Encoding: chunked\r\n", body=ended),
        "two lengths": request(heads=b"Content-Length: 0\r\n", body=good),
        "one length twice": request(heads=b"Content-Length: %d\r\n" % len(webhooks.body)),
        "a list of lengths": request(heads=b"Content-Length: 3, 3\r\n", body=good, length=False),
    }


def _of_odd_lengths(webhooks: Webhooks) -> dict[str, bytes]:
    odd = (b"+3", b"-1", b"0x3", b"3 3", b"3_0", b"", b"\xb2", b"3\0", b"3.0", b"99999999999999999999999")
    told = {value: b"Content-Length: " + value + b"\r\n" for value in odd}
    return {
        f"length {value!r}": webhooks.request(heads=line, body=webhooks.request(), length=False)
        for value, line in told.items()
    } | {
        "a length that is too short": webhooks.request(heads=b"Content-Length: 5\r\n", length=False),
        "a length that is too long, the next request inside": webhooks.request(
            heads=b"Content-Length: %d\r\n" % (len(webhooks.body) + len(webhooks.request())),
            body=webhooks.body + webhooks.request(),
            length=False,
        ),
        "a length that never comes": webhooks.request(heads=b"Content-Length: 9999\r\n", length=False),
        "more than may come, a request in it": webhooks.request(
            heads=b"Content-Length: 999999\r\n", body=webhooks.request(), length=False
        ),
    }


def _of_odd_chunks(webhooks: Webhooks) -> dict[str, bytes]:
    length, good, end = b"%x" % len(webhooks.body), webhooks.request(), b"0\r\n\r\n"
    odd = {
        "no number": webhooks.chunks(b"zz"),
        "below zero": webhooks.chunks(b"-" + length),
        "0x": webhooks.chunks(b"0x" + length),
        "_": webhooks.chunks(b"0_" + length),
        "a sign": webhooks.chunks(b"+" + length),
        "a blank": webhooks.chunks(length + b" "),
        "nothing": webhooks.chunks(b""),
        "beyond 64 bits": webhooks.chunks(b"fffffffffffffffff"),
        "lines that end with LF": length + b"\n" + webhooks.body + b"\n0\n\n",
        "an extension that ends with LF": webhooks.chunks(length + b";a\n0"),
        "an extension with a CR": webhooks.chunks(length + b";a\r0"),
        "too little": b"3\r\nabcd\r\n" + end,
        "a trailer that is none": webhooks.chunks(end=b"0\r\nno colon\r\n\r\n"),
        "5,000 trailers": webhooks.chunks(end=b"0\r\n" + b"".join(b"t%d: y\r\n" % n for n in range(5000)) + b"\r\n"),
        "no end": webhooks.chunks(end=b""),
    }
    return {
        f"chunk: {name}": webhooks.request(heads=CHUNKED, body=body + good, length=False) for name, body in odd.items()
    }


def _of_odd_lines(webhooks: Webhooks) -> dict[str, bytes]:
    good = webhooks.request()
    lines = [
        b"FOO /update HTTP/1.1",
        b"post /update HTTP/1.1",
        b"P(ST /update HTTP/1.1",
        b"A" * 9000 + b" /update HTTP/1.1",
    ]
    lines += [
        b"POST\t/update HTTP/1.1",
        b"POST /update HTTP/1.1 x",
        b"POST",
    ]
    lines += [b"POST /update " + version for version in (b"http/1.1", b"HTTP/1.2", b"HTTP/11.1", b"HTTP/", b"HTTP/1.x")]
    return {f"line {line[:30]!r}": webhooks.request(line) for line in lines} | {
        "a blank before": b" " + good,
        "lines that end with LF": good.replace(b"\r\n", b"\n"),
        "lines that end with CR": good.replace(b"\r\n", b"\r"),
        "HTTP/0.9": b"POST /update\r\n\r\n" + webhooks.body,
        "no lines at all": bytes(range(256)) * 64,
    }


def _of_odd_headers(webhooks: Webhooks) -> dict[str, bytes]:
    lines = {
        "a CR in a value": b"X: a\rb\r\n",
        "CR CR LF": b"X: a\r\r\n",
        "a bare LF": b"X: a\nY: b\r\n",
        "NUL in a value": b"X: a\0b\r\n",
        "NUL in a name": b"X\0Y: b\r\n",
        "a byte in a name": b"X\xe9: b\r\n",
        "a blank in a name": b"X Y: b\r\n",
        "no name": b": b\r\n",
        "no colon": b"X\r\n",
        "folded": b"X: a\r\n b\r\n",
        "folded around a length": b"X: a\r\n\tContent-Length: 0\r\n",
        "Host twice": b"Host: y\r\n",
        "Authorization twice": b"Authorization: %s\r\n" % webhooks.authorization,
        "Authorization twice, in capitals": b"AUTHORIZATION: Bearer x\r\n",
        "Content-Type twice": b"Content-Type: a/b\r\nContent-Type: c/d\r\n",
        "129 headers": b"".join(b"X-%d: y\r\n" % number for number in range(129)),
        "5,000 headers": b"".join(b"X-%d: y\r\n" % number for number in range(5000)),
        "a line of 8,191 bytes": b"X: " + b"y" * 8191 + b"\r\n",
        "a name of 9,000 bytes": b"y" * 9000 + b": z\r\n",
        "Expect of something else": b"Expect: 200-ok\r\n",
    }
    return {f"header: {name}": webhooks.request(heads=line) for name, line in lines.items()} | {
        "header: no Host": webhooks.request(host=b""),
        "header: the first one folded": webhooks.request(host=b" Host: x\r\n"),
        "header: two tokens in one": Webhooks(webhooks.authorization + b", Bearer x", webhooks.body).request(),
        "header: a token of bytes": Webhooks(b"Bearer \xff\xfe", webhooks.body).request(),
        "header: a megabyte": webhooks.request(heads=b"X: " + b"y" * 1_000_000),
    }


def _of_odd_targets(webhooks: Webhooks) -> dict[str, bytes]:
    targets = [b"/../update", b"/x/../update", b"/%2e%2e/update", b"/api/..;/update", b"/update%00", b"/update\0"]
    targets += [
        b"/upd\xe9te",
        b"/update%",
        b"/update%zz",
        b"/update%ff",
        b"/update;x",
        b"/update\\",
        b"/update%2f",
        b"/upd%ate",
    ]
    targets += [
        b"update",
        b"?",
        b"*",
        b"/up date",
        b"//evil.test/update",
        b"http://[::/update",
        b"http://x:999999/update",
    ]
    targets += [b"/" * 5000, b"/a" * 3000, b"/" + b"a" * 8191, b"/update/" + b"%2e%2e/" * 900]
    reads = [
        b"/static/../../pyproject.toml",
        b"/static/..%2f..%2fpyproject.toml",
        b"/static/%2e%2e/%2e%2e/pyproject.toml",
    ]
    reads += [
        b"/static/x%00.css",
        b"/static/%ff",
        b"/static/" + b"a" * 4000,
        b"/static//etc/passwd",
        b"/static/.",
        b"/static/",
    ]
    reads += [
        b"/schemas/%00/1",
        b"/schemas/..%2f..%2f/1",
        b"/schemas/" + b"a" * 4000 + b"/1",
        b"/schemas/%2e%2e/%2e%2e/1",
    ]
    reads += [b"/admin/v1/users/%ff", b"/admin/v1/users/%00", b"/api/../admin/v1/users", b"/admin%2fv1/users"]
    reads += [b"/confirm?state=%ff%00", b"/connect/%2e%2e/metrics/x"]
    return {
        f"{method.decode()} {target[:40]!r}": webhooks.request(method + b" " + target + b" HTTP/1.1")
        for method, several in ((b"POST", targets), (b"GET", reads), (b"OPTIONS", [b"*", b"/update"]))
        for target in several
    } | {
        "TRACE": webhooks.request(b"TRACE /update HTTP/1.1"),
        "CONNECT": webhooks.request(b"CONNECT evil.test:443 HTTP/1.1") + webhooks.request(),
        "CONNECT to an address of ours": webhooks.request(b"CONNECT /update HTTP/1.1") + webhooks.request(),
    }


def _of_other_protocols(webhooks: Webhooks) -> dict[str, bytes]:
    good = webhooks.request()
    return {
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" + good,
        "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200) + good,
        "a proxy's own line": b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + good,
        "AMQP": b"AMQP\0\0\x09\x01" + good,
        "SSH": b"SSH-2.0-OpenSSH_9.2\r\n" + good,
    }


def _of_odd_bodies(webhooks: Webhooks) -> dict[str, bytes]:
    request, body = webhooks.request, webhooks.body
    form = b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n' + body + b"\r\n--x--\r\n"
    kind = b"Content-Type: multipart/form-data; boundary=x\r\n"
    coded = {name: b"Content-Encoding: " + name + b"\r\n" for name in (b"gzip", b"br", b"x", b"identity, gzip")}
    forms = [b"POST /api/oauth/token", b"POST /account", b"POST /connect", b"POST /api/oauth/authorize"]
    return {
        **{f"body: {name!r}": request(heads=line, body=gzip.compress(body)) for name, line in coded.items()},
        "body: two codings": request(
            heads=b"Content-Encoding: identity\r\n" + coded[b"gzip"], body=gzip.compress(body)
        ),
        "body: a bomb": request(heads=coded[b"gzip"], body=gzip.compress(bytes(100_000_000))),
        "body: a bomb on its way": request(
            heads=b"Transfer-Encoding: gzip, chunked\r\n",
            body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(bomb := gzip.compress(bytes(100_000_000))), bomb),
            length=False,
        ),
        "body: several parts": request(heads=kind, body=form),
        **{f"body: several parts, {line!r}": request(line + b" HTTP/1.1", kind, form) for line in forms},
        **{f"body: a preamble, {line!r}": request(line + b" HTTP/1.1", kind, b"y" * 250_000) for line in forms},
        **{f"body: 60,000 fields, {line!r}": request(line + b" HTTP/1.1", FORM, b"a=b&" * 60_000) for line in forms},
        **{f"body: no form, {line!r}": request(line + b" HTTP/1.1", FORM, b"\xff%ff%00=%zz&;&=&==") for line in forms},
        "body: a quarter of a megabyte of brackets": request(body=b"[" * 262_144),
        "body: a quarter of a megabyte of objects": request(body=b'{"":' * 65_536),
        "body: a quarter of a megabyte of digits": request(body=b"9" * 262_144),
        "body: the same member again and again": request(body=b"{" + b'"a":1,' * 40_000 + b'"a":1}'),
        "body: half a text of escapes": request(body=b'{"a":"' + b"\\" * 262_000),
        "body: refused for its size, another request in it": request(body=webhooks.request() * 400),
    }


FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"


async def exchange(port: int, sent: bytes, seconds: float) -> tuple[list[int], bytes]:
    """Send it, and `LAST` once there is an answer → the statuses of the answers to `sent`, and all that came back.

    TimeoutError: the connection has not ended by then.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        async with asyncio.timeout(seconds):
            writer.write(sent)
            while piece := await reader.read(65_536):
                if not got:
                    writer.write(LAST)
                got += piece
    except ConnectionError:
        pass  # it has hung up on what it did not want to read
    finally:
        writer.transport.abort()
    return statuses_of(got.removesuffix(_alive(got))), got


def statuses_of(got: bytes) -> list[int]:
    """Those of all answers, of whichever version of HTTP."""
    return [int(status) for status in _STATUS.findall(got)]


def _alive(got: bytes) -> bytes:
    """The answer to `LAST`, where one came."""
    at = got.rfind(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Type: application/json\r\n")
    return got[at:] if at >= 0 and got.endswith(b'{"status":"alive"}') else b""
