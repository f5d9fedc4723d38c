"""What a webhook means, reading by reading: the guide contradicts itself, and we accept each of its versions."""

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from common.urls import AllowedHosts
from ingress.parameters import BadInput
from ingress.webhook.rules import Accept, Count, Decision, Forbid, Park, Receipt, Terms, decide
from schemas.messages import PlatformIds, ResyncWanted, UnusableWebhook, WebhookReceived
from tests.ingress_app import webhook

URL = "https://api.syncaroo.com/v1/locations/12/resources/7"
RECEIPT = Receipt("delivery-1", 99, datetime(2026, 1, 2, tzinfo=UTC))
TERMS = Terms(AllowedHosts(["api.syncaroo.com"], allow_http=False), frozenset({"locations", "resources", "rates"}))
MAPPING = PlatformIds(attribute_type="resources", resource_type="meeting-room", location_id="1198", resource_id="19284")


def judged(body: dict[str, Any], connection_id: int = 99) -> Decision:
    return decide(body, replace(RECEIPT, connection_id=connection_id), TERMS)


def meta(**changes: Any) -> dict[str, Any]:
    """The guide's webhook with other metaData; a member set to `...` is left out."""
    members = webhook()["metaData"] | changes
    return webhook(metaData={name: value for name, value in members.items() if value is not ...})


def accepted(body: dict[str, Any]) -> WebhookReceived:
    decision = judged(body)
    assert isinstance(decision, Accept), decision
    return decision.message


def test_the_guides_webhook() -> None:
    assert accepted(webhook()) == WebhookReceived(
        delivery_id="delivery-1",
        connection_id=99,
        url=URL,
        mapping=MAPPING,
        action=None,
        received_at=RECEIPT.received_at,
    )


@pytest.mark.parametrize(
    "body",
    [
        webhook(connectionId="99"),
        webhook(connectionId=..., connection_id=99),
        webhook(connection_id=99),
        webhook(connection_id="99"),
        webhook(locationId=1198),
        webhook(locationId=..., location_id="1198"),
        webhook(location_id=1198),
        webhook(webhookType="Data"),
        webhook(webhookType=...),
        webhook(webhookType=..., webhook_type="data"),
        webhook(hash=...),
        webhook(unknown={"x": [1]}, actionCallback="https://x"),
        webhook(metaData=..., meta_data=webhook()["metaData"]),
        webhook(metaData=..., data=webhook()["metaData"]),
        webhook(metaData=None, data=webhook()["metaData"]),
        webhook(metaData=[], **webhook()["metaData"]),
        webhook(metaData=..., **webhook()["metaData"]),
        webhook(metaData={}, data=[], **webhook()["metaData"]),
        meta(attributeType="resource"),
        meta(attributeType="RESOURCES"),
        meta(resourceId=19284),
        meta(resourceId=..., resource_id="19284"),
        meta(syncarooId="abc"),
        meta(apiUrl=...) | {"data": {"apiUrl": URL}},
        meta(apiUrl="") | {"apiUrl": URL},
        meta(apiUrl=..., api_url=URL),
        webhook(data={"apiUrl": "https://api.syncaroo.com/other"}, apiUrl="https://api.syncaroo.com/third"),
    ],
)
def test_every_reading_of_the_guide_means_the_same(body: dict[str, Any]) -> None:
    message = accepted(body)
    assert (message.connection_id, message.url, message.mapping) == (99, URL, MAPPING)


def test_what_is_not_told_stays_open() -> None:
    message = accepted({"connectionId": 99, "apiUrl": URL})
    assert (message.mapping, message.action) == (PlatformIds(), None)


@pytest.mark.parametrize(
    ("action", "carried"),
    [
        ("new", "new"),
        ("unmapped", "unmapped"),
        ("Unmapped ", "unmapped"),
        ("", None),
        (None, None),
        (7, None),
        ([], None),
    ],
)
def test_actions_are_carried(action: Any, carried: str | None) -> None:
    assert accepted(webhook(action=action)).action == carried


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (webhook(webhookType="status"), "status"),
        (webhook(webhookType="Status", metaData=None), "status"),
        (webhook(webhookType="hello"), "unknown_type"),
        (meta(attributeType="bookings"), "unsynced_attribute"),
        (meta(attributeType="Booking"), "unsynced_attribute"),
        (meta(attributeType="availability", apiUrl=...), "unsynced_attribute"),
        (meta(attributeType="moods"), "unsynced_attribute"),
    ],
)
def test_what_is_only_counted(body: dict[str, Any], kind: str) -> None:
    assert judged(body) == Count(kind)  # type: ignore[arg-type]  # a parameter's text is one of the literals


@pytest.mark.parametrize("given", [98, "98", "099", " 99", "x", -99, 2**70])
def test_another_connection_is_forbidden(given: Any) -> None:
    assert judged(webhook(connectionId=given)) == Forbid()


def test_a_token_of_another_connection_is_forbidden() -> None:
    assert judged(webhook(), connection_id=98) == Forbid()


LOOK_AT_1198 = ResyncWanted(connection_id=99, location_id="1198")


@pytest.mark.parametrize(
    ("body", "resync"),
    [
        ({}, None),
        ({"connectionId": 99}, None),
        (webhook(connectionId=...), None),
        (webhook(connectionId=None), None),
        (webhook(connectionId=True), None),
        (webhook(connectionId=[99]), None),
        (webhook(connectionId=99.5), None),
        (webhook(metaData=...), LOOK_AT_1198),
        (webhook(metaData=None), LOOK_AT_1198),
        (webhook(metaData=[]), LOOK_AT_1198),
        (webhook(metaData={}), LOOK_AT_1198),
        (webhook(metaData="x"), LOOK_AT_1198),
        (webhook(metaData=[], locationId=7), ResyncWanted(connection_id=99, location_id="7")),
        (webhook(metaData=[1], apiUrl=URL), None),
        (meta(apiUrl=None), LOOK_AT_1198),
        (meta(apiUrl=7), None),
        (meta(apiUrl=[URL]), None),
        (meta(apiUrl={"href": URL}), None),
        (meta(apiUrl=URL + "?" + "x" * 2048), None),
        (meta(apiUrl=URL + "\0"), None),
        (meta(apiUrl=URL + "/é"), None),
        (meta(resourceId=True), None),
        (meta(resourceId={"id": 7}), None),
        (meta(resourceId="7\0"), None),
        (meta(resourceId="7" * 256), None),
        (meta(resourceType=["office"]), None),
        (meta(attributeType=7), None),
        (webhook(locationId=[1198]), None),
        (webhook(locationId=1198.5), None),
        (webhook(webhookType=7), None),
    ],
)
def test_what_cannot_be_used_is_parked_whole(body: dict[str, Any], resync: ResyncWanted | None) -> None:
    decision = judged(body)
    assert isinstance(decision, Park), decision
    assert decision.reason == "unusable_webhook"
    assert decision.message == UnusableWebhook(
        delivery_id="delivery-1", connection_id=99, body=body, received_at=RECEIPT.received_at
    )
    assert decision.resync == resync


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.test/v1/locations/12",
        "http://api.syncaroo.com/v1/locations/12",
        "https://api.syncaroo.com:8443/v1",
        "https://api.syncaroo.com@evil.test/v1",
        "https://api.syncaroo.com\\.evil.test/v1",
        "https://api.syncaroo.com\t.evil.test/v1",
        "https://api.syncaroo。com/v1",
        "https://127.0.0.1/v1",
        "https://api.syncar.../",
        "/v1/locations/12",
        "nonsense",
    ],
)
def test_a_foreign_host_is_parked_as_what_it_would_be_if_it_were_allowed(url: str) -> None:
    """T-URL-INGRESS."""
    decision = judged(meta(apiUrl=url))
    assert isinstance(decision, Park), decision
    assert (decision.reason, decision.resync) == ("forbidden_host", None)
    assert decision.message == replace(accepted(webhook()), url=url)


def test_of_two_spellings_that_mean_the_same_the_documented_one_is_taken() -> None:
    """Whichever comes first; a number is no text where a text is documented."""
    first, last = {"resourceType": "1", "resource_type": 1}, {"resource_type": 1, "resourceType": "1"}
    for both in (first, last):
        body = webhook()
        del body["metaData"]["resourceType"]
        body["metaData"] |= both
        assert accepted(body).mapping.resource_type == "1"


@pytest.mark.parametrize(
    "body",
    [
        webhook(connection_id=98),
        webhook(location_id="1199"),
        webhook(webhook_type="status"),
        webhook(meta_data={"apiUrl": URL}),
        meta(resource_id="7"),
        meta(api_url="https://api.syncaroo.com/other"),
    ],
)
def test_two_spellings_of_a_name_that_differ_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="differ"):
        judged(body)
