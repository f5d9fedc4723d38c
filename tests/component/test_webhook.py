"""The webhook's answers, over HTTP, with a broker that can be told how to behave (CONTRACT §3.4)."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from common.access_tokens import AccessToken
from common.listen import Listener
from ingress import limits
from ingress.app import Parts, create_app
from ingress.webhook import deposit
from ingress.webhook.deposit import Deposit
from schemas.messages import PlatformIds, ResyncWanted, UnusableWebhook, WebhookReceived
from tests.ingress_app import CONNECTION, PLATFORM_SECRET, FakeBroker, bearer, settings, webhook
from tests.waiting import until

Send = Callable[..., Awaitable[ClientResponse]]


class Ingress:
    """The application with its fake broker, and a client for it."""

    def __init__(self, **changes: Any) -> None:
        self.broker = FakeBroker()
        self._settings = settings(**changes)
        self.parts = Parts(self._settings, self.broker)
        self._listener = Listener(create_app(self._settings, self.parts), "127.0.0.1", 0, "HTTP_PORT")

    async def __aenter__(self) -> "Ingress":
        self._port = await self._listener.start()
        self.client = ClientSession(f"http://127.0.0.1:{self._port}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        await self._listener.close()
        await self.parts.store.close()

    async def send(
        self, body: Any = None, *, raw: bytes | None = None, path: str = "/api/update/", headers: Any = None
    ) -> ClientResponse:
        data = json.dumps(webhook() if body is None else body).encode() if raw is None else raw
        headers = bearer() if headers is None else headers
        return await self.client.post(path, data=data, headers=headers, allow_redirects=False)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    def counted(self, outcome: str) -> float:
        return count(self.parts.registry, outcome)


def count(registry: CollectorRegistry, outcome: str) -> float:
    return registry.get_sample_value("gateway_webhooks_total", {"outcome": outcome}) or 0.0


@pytest.fixture
async def ingress() -> AsyncIterator[Ingress]:
    async with Ingress() as started:
        yield started


async def test_the_guides_webhook_is_accepted_and_published(ingress: Ingress) -> None:
    before = datetime.now(UTC)
    response = await ingress.send()
    answer = await response.json()
    assert (response.status, answer["status"]) == (200, "accepted")
    assert "Server" not in response.headers
    [(stage, message)] = ingress.broker.messages()
    assert stage == "fetch"
    assert isinstance(message, WebhookReceived)
    assert message == WebhookReceived(
        delivery_id=answer["deliveryId"],
        connection_id=CONNECTION,
        url="https://api.syncaroo.com/v1/locations/12/resources/7",
        mapping=PlatformIds(
            attribute_type="resources", resource_type="meeting-room", location_id="1198", resource_id="19284"
        ),
        action=None,
        received_at=message.received_at,
    )
    assert before - timedelta(milliseconds=1) <= message.received_at <= datetime.now(UTC)
    assert message.received_at.tzinfo is not None


@pytest.mark.parametrize(
    "path", ["/api/update", "/api/update/", "/update", "/update/", "//update//", "/api//update/", "//api///update"]
)
async def test_every_spelling_of_the_path_is_answered_directly(ingress: Ingress, path: str) -> None:
    reader, writer = await ingress.connect()
    body = json.dumps(webhook()).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer()['Authorization']}\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert len(ingress.broker.published) == 1


async def test_another_prefix_another_status(ingress: Ingress) -> None:
    async with Ingress(api_path="/v2/hooks", webhook_success_status=202) as other:
        assert (await other.send(path="/v2/hooks/update/")).status == 202
        assert (await other.send(path="/api/update/")).status == 404
    async with Ingress(api_path="/") as root:
        assert (await root.send(path="/update/")).status == 200


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", "", "x/y; q"])
async def test_any_content_type_will_do(ingress: Ingress, kind: str) -> None:
    assert (await ingress.send(headers={**bearer(), "Content-Type": kind})).status == 200


async def test_other_methods_are_refused(ingress: Ingress) -> None:
    response = await ingress.client.get("/api//update/")
    assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert response.content_type == "application/problem+json"


# --- whose token ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer nonsense",
        "Bearer sgw_at_99.family.99999999999.AAAA",
        "Basic dTpw",
        "Bearer ü",
        "Bearer " + "x" * 5000,
    ],
)
async def test_a_token_that_is_not_ours_gets_401(ingress: Ingress, header: str | None) -> None:
    """T-ING-AUTH."""
    response = await ingress.send(headers={} if header is None else {"Authorization": header})
    assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert ingress.broker.published == []
    assert ingress.counted("unauthorized") == 1


async def test_a_forged_token_gets_401(ingress: Ingress) -> None:
    """T-ING-AUTH."""
    from cryptography.fernet import Fernet

    assert (await ingress.send(headers=bearer(key=Fernet.generate_key().decode()))).status == 401
    genuine = bearer()["Authorization"]
    for forged in (genuine[:-1], genuine[:-3] + "AAA", genuine.replace("99", "98", 1)):
        assert (await ingress.send(headers={"Authorization": forged})).status == 401
    assert ingress.broker.published == []


async def test_several_authorization_headers_are_refused(ingress: Ingress) -> None:
    """T-ING-SMUGGLE."""
    token = bearer()["Authorization"]
    response = await ingress.send(headers=[("Authorization", token), ("Authorization", token)])
    assert response.status in (400, 401)
    assert ingress.broker.published == []


async def test_an_expired_token_gets_401_and_the_webhook_is_fetched_all_the_same(ingress: Ingress) -> None:
    """T-ING-AUTH."""
    response = await ingress.send(headers=bearer(age=4000))
    assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    [(stage, message)] = ingress.broker.messages()
    assert (stage, type(message)) == ("fetch", WebhookReceived)
    for odd in (b"{", json.dumps(webhook(connectionId=98)).encode()):
        assert (await ingress.send(raw=odd, headers=bearer(age=4000))).status == 401
    assert len(ingress.broker.published) == 1


async def test_an_expired_webhook_that_the_broker_refuses_is_remembered(ingress: Ingress) -> None:
    ingress.broker.down = True
    assert (await ingress.send(headers=bearer(age=4000))).status == 401
    assert len(ingress.parts.refused) == 1


async def test_a_revoked_token_gets_401_and_nothing_is_fetched(
    ingress: Ingress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-ING-AUTH."""
    monkeypatch.setattr(ingress.parts.revocations, "_families", frozenset({"gone"}))
    assert ingress.parts.revocations.is_revoked(AccessToken(CONNECTION, "gone", 0))
    for age in (0, 4000):
        assert (await ingress.send(headers=bearer(family="gone", age=age))).status == 401
    assert ingress.broker.published == []
    assert (await ingress.send()).status == 200


async def test_the_token_of_another_connection_gets_403(ingress: Ingress) -> None:
    """T-ING-AUTH."""
    for other in (98, "98", "099", -99):
        assert (await ingress.send(webhook(connectionId=other))).status == 403
    assert (await ingress.send(headers=bearer(98))).status == 403
    assert ingress.broker.published == []


# --- what is in it -------------------------------------------------------------------------------------------------


async def test_what_is_only_counted(ingress: Ingress) -> None:
    """T-ING-SCHEMA."""
    for body, outcome in (
        (webhook(webhookType="status"), "status"),
        (webhook(webhookType="hello"), "unknown_type"),
        (webhook(metaData={"attributeType": "bookings", "apiUrl": "https://api.syncaroo.com/x"}), "unsynced_attribute"),
    ):
        response = await ingress.send(body)
        assert (response.status, (await response.json())["status"]) == (200, "accepted")
        assert ingress.counted(outcome) == 1
    assert ingress.broker.published == []


async def test_an_unusable_webhook_is_accepted_and_parked_and_its_location_is_looked_at(ingress: Ingress) -> None:
    """T-ING-SCHEMA."""
    body = webhook(metaData=None)
    response = await ingress.send(body)
    assert response.status == 200
    (dead, message), (stage, resync) = ingress.broker.messages()
    assert isinstance(message, UnusableWebhook)
    assert (dead, message.body, message.connection_id) == ("dead.fetch", body, CONNECTION)
    assert (stage, resync) == ("fetch", ResyncWanted(connection_id=CONNECTION, location_id="1198"))
    assert ingress.broker.reasons() == ["unusable_webhook"]


async def test_a_foreign_host_is_accepted_and_parked_so_that_it_can_be_replayed(ingress: Ingress) -> None:
    """T-URL-INGRESS: nobody is asked to call it."""
    meta = webhook()["metaData"] | {"apiUrl": "https://evil.test/v1/locations/12"}
    assert (await ingress.send(webhook(metaData=meta))).status == 200
    [(dead, message)] = ingress.broker.messages()
    assert isinstance(message, WebhookReceived)
    assert (dead, message.url) == ("dead.fetch", "https://evil.test/v1/locations/12")
    assert ingress.broker.reasons() == ["forbidden_host"]


CORPUS = [
    b"",
    b" ",
    b"null",
    b"7",
    b'"x"',
    b"[]",
    b"[" * 10_000,
    b'{"a":' * 40 + b"1" + b"}" * 40,
    b'{"connectionId":99,"connectionId":99}',
    b'{"connectionId":NaN}',
    b'{"connectionId":Infinity}',
    b'{"connectionId":1e999}',
    b'{"connectionId":' + b"9" * 5000 + b"}",
    b"\xef\xbb\xbf{}",
    b'{"a":"\\ud800"}',
    b'{"a":"\xed\xa0\x80"}',
    b'{"a":"\xff"}',
    b'{"a":"\x00"}',
    b"{'a':1}",
    b'{"a":1}}',
    b'{"a":1,}',
    b"// c\n{}",
    '{"a":1}'.encode("utf-16"),
    b'{"connectionId":99,"connection_id":98}',
]


@pytest.mark.parametrize("raw", CORPUS, ids=range(len(CORPUS)))
async def test_malformed_bodies_get_400(ingress: Ingress, raw: bytes) -> None:
    """T-ING-CANON, T-ING-JSON."""
    response = await ingress.send(raw=raw)
    assert (response.status, response.content_type) == (400, "application/problem+json")
    assert ingress.broker.published == []
    assert ingress.counted("malformed") == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["apiUrl", "api_url", "attributeType", "resourceId", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)
NAMES = [
    "connectionId",
    "connection_id",
    "webhookType",
    "locationId",
    "metaData",
    "meta_data",
    "data",
    "action",
    "apiUrl",
]
NAMES += ["hash", "attributeType", "resourceType", "resourceId"]


@given(body=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6), ours=st.booleans())
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_json_comes_the_answer_is_no_500(ingress: Ingress, body: dict[str, Any], ours: bool) -> None:
    """T-ING-JSON."""
    before = len(ingress.broker.published)
    if ours:
        body = {**body, "connectionId": CONNECTION}
        body.pop("connection_id", None)
    response = await ingress.send(raw=json.dumps(body).encode())
    assert response.status in (200, 400, 403)
    assert response.status == 200 or len(ingress.broker.published) == before


@given(raw=st.binary(max_size=60))
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_bytes_come_the_answer_is_no_500(ingress: Ingress, raw: bytes) -> None:
    """T-ING-JSON."""
    assert (await ingress.send(raw=raw)).status in (200, 400, 403)


# --- hash ----------------------------------------------------------------------------------------------------------


def signed(body: dict[str, Any], key: str = PLATFORM_SECRET) -> dict[str, Any]:
    rest = {name: value for name, value in body.items() if name != "hash"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return rest | {"hash": hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()}


async def test_enforce_refuses_a_wrong_or_missing_hash() -> None:
    """T-ING-SIG."""
    async with Ingress(webhook_hash_mode="enforce") as ingress:
        for odd in ("XXXX", "", None, "ü🏢", 7, ..., "0" * 64):
            assert (await ingress.send(webhook(hash=odd))).status == 403
        assert ingress.broker.published == []
        assert (await ingress.send(signed(webhook()))).status == 200
        assert (await ingress.send(raw=b'{"hash":"a","hash":"b","connectionId":99}')).status == 400
        tampered = signed(webhook()) | {"locationId": "1"}
        assert (await ingress.send(tampered)).status == 403
        assert (await ingress.send(webhook(), headers=bearer(age=4000))).status == 401
        assert len(ingress.broker.published) == 1


async def test_any_of_the_platforms_secrets_or_the_keys_own() -> None:
    async with Ingress(webhook_hash_mode="enforce", platform_client_secret="new-secret-1,old-secret-2") as rotating:
        for key in ("new-secret-1", "old-secret-2"):
            assert (await rotating.send(signed(webhook(), key))).status == 200
    async with Ingress(webhook_hash_mode="enforce", webhook_hash_key="own-key") as own:
        assert (await own.send(signed(webhook()))).status == 403
        assert (await own.send(signed(webhook(), "own-key"))).status == 200


async def test_observe_counts_and_keeps_the_last_that_did_not_match(ingress: Ingress) -> None:
    for number in range(25):
        assert (await ingress.send(webhook(locationId=number))).status == 200
    assert (await ingress.send(signed(webhook()))).status == 200
    value = ingress.parts.registry.get_sample_value
    assert value("gateway_webhook_hashes_total", {"verdict": "mismatch"}) == 25
    assert value("gateway_webhook_hashes_total", {"verdict": "match"}) == 1
    operator = {"Authorization": "Bearer operator-of-the-tests"}
    async with ingress.client.get("/admin/v1/unmatched-webhooks", headers=operator) as answer:
        kept = [json.loads(base64.b64decode(item["body"])) for item in (await answer.json())["items"]]
    assert [body["locationId"] for body in kept] == list(range(5, 25))


async def test_off_looks_at_no_hash() -> None:
    async with Ingress(webhook_hash_mode="off") as ingress:
        assert (await ingress.send()).status == 200
        assert not ingress.parts.hashes.unmatched


# --- limits --------------------------------------------------------------------------------------------------------


async def test_bodies_over_256_kib_get_413(ingress: Ingress) -> None:
    """T-ING-BODY."""
    filling = "x" * (256 * 1024 - len(json.dumps(webhook(note=""))))
    assert (await ingress.send(webhook(note=filling))).status == 200
    assert (await ingress.send(webhook(note=filling + "x"))).status == 413

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 64 * 1024

    response = await ingress.client.post("/update", data=chunks(), headers=bearer())
    assert response.status == 413
    assert len(ingress.broker.published) == 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "x"])
async def test_encoded_bodies_get_415(ingress: Ingress, encoding: str) -> None:
    """T-ING-BODY."""
    import gzip

    response = await ingress.send(
        raw=gzip.compress(json.dumps(webhook()).encode()), headers={**bearer(), "Content-Encoding": encoding}
    )
    assert response.status in (400, 415)
    assert ingress.broker.published == []


async def test_a_body_that_comes_too_slowly_gets_408(ingress: Ingress, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-ING-BODY, T-ING-SLOW."""
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.1)
    reader, writer = await ingress.connect()
    head = f"POST /update HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer()['Authorization']}\r\n"
    writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()
    await writer.wait_closed()


# --- the broker ----------------------------------------------------------------------------------------------------


async def test_a_broker_that_is_down_means_503_and_a_resync_later(ingress: Ingress) -> None:
    """T-BRK-DOWN."""
    stop = asyncio.Event()
    running = asyncio.create_task(ingress.parts.refused.run(stop))
    ingress.broker.down = True
    for connection in (CONNECTION, CONNECTION, 98):
        response = await ingress.send(webhook(connectionId=connection), headers=bearer(connection))
        assert response.status == 503
        assert 1 <= int(response.headers["Retry-After"]) <= 10
        assert response.content_type == "application/problem+json"
    assert len(ingress.parts.refused) == 2
    assert ingress.counted("unavailable") == 3
    ingress.broker.down = False
    await until(lambda: len(ingress.broker.published) == 2)
    assert {message.connection_id for _, message in ingress.broker.messages()} == {98, 99}  # type: ignore[attr-defined]  # all of these kinds have it
    assert {type(message) for _, message in ingress.broker.messages()} == {ResyncWanted}
    stop.set()
    await running
    assert len(ingress.parts.refused) == 0


async def test_success_comes_only_after_the_confirm(ingress: Ingress) -> None:
    ingress.broker.confirm.clear()
    sending = asyncio.create_task(ingress.send())
    await until(lambda: ingress.broker.waiting == 1)
    assert not sending.done()
    ingress.broker.confirm.set()
    assert (await sending).status == 200


async def test_the_confirm_is_waited_for_less_than_five_seconds(ingress: Ingress) -> None:
    assert (await ingress.send()).status == 200
    assert all(seconds <= 4.0 for seconds in ingress.broker.asked)


async def test_too_many_at_once_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """T-ING-SHED: their connection is remembered, and what needs no room is answered as ever."""
    monkeypatch.setattr("ingress.app.Deposit", partial(Deposit, in_flight=2))
    async with Ingress() as ingress:
        ingress.broker.confirm.clear()
        sending = [asyncio.create_task(ingress.send()) for _ in range(2)]
        await until(lambda: ingress.broker.waiting == 2)
        assert (await ingress.send(webhook(webhookType="status"))).status == 200
        assert (await ingress.send(raw=b"not even JSON")).status == 400
        assert len(ingress.parts.refused) == 0
        refused = await ingress.send()
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert len(ingress.parts.refused) == 1
        ingress.broker.confirm.set()
        assert [(await one).status for one in sending] == [200, 200]
        assert (await ingress.send()).status == 200


async def test_a_slow_broker_gets_no_more_than_it_confirms_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """T-ING-SHED: else what it confirms has timed out here by then, and nothing is accepted any more."""
    monkeypatch.setattr(deposit, "SLOW_SECONDS", 0.0)
    async with Ingress() as ingress:
        ingress.broker.confirm.clear()
        sending = asyncio.create_task(ingress.send())
        await until(lambda: ingress.broker.waiting == 1)
        assert (await ingress.send()).status == 503
        ingress.broker.confirm.set()
        assert (await sending).status == 200
        assert (await ingress.send()).status == 200


async def test_dead_letters_that_nobody_takes_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deposit, "SLOW_SECONDS", 0.0)
    async with Ingress() as ingress:
        ingress.broker.confirm.clear()
        parked = asyncio.create_task(ingress.send(webhook(metaData={"apiUrl": "https://elsewhere.example/v1/x"})))
        await until(lambda: ingress.broker.waiting == 1)
        healthy = asyncio.create_task(ingress.send())
        await until(lambda: ingress.broker.waiting == 2)
        ingress.broker.confirm.set()
        assert [(await one).status for one in (parked, healthy)] == [200, 200]


async def test_what_waits_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """T-ING-SHED: thousands of the largest would be a gigabyte."""
    monkeypatch.setattr(deposit, "IN_FLIGHT_BYTES", 5_000)
    async with Ingress() as ingress:
        ingress.broker.confirm.clear()
        large = asyncio.create_task(ingress.send(webhook(more="x" * 6_000)))
        await until(lambda: ingress.broker.waiting == 1)
        assert (await ingress.send()).status == 503
        ingress.broker.confirm.set()
        assert (await large).status == 200
        assert (await ingress.send()).status == 200


async def test_a_client_that_hangs_up_does_not_undo_its_webhook(ingress: Ingress) -> None:
    """T-ING-DISC."""
    ingress.broker.confirm.clear()
    _, writer = await ingress.connect()
    body = json.dumps(webhook()).encode()
    head = f"POST /update HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer()['Authorization']}\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await until(lambda: ingress.broker.waiting == 1)
    writer.transport.abort()
    ingress.broker.confirm.set()
    await until(lambda: ingress.counted("accepted") == 1)
    assert len(ingress.broker.published) == 1
