"""ingress.documents: what is served describes what the ingress really takes and answers."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator

from ingress.app import Parts, create_app, create_ops_app
from ingress.documents.openapi import openapi
from ingress.documents.place import place_of
from schemas.catalogue import version_of
from schemas.events import EVENT_TYPES, ListingChanged, SyncHeld, dataschema_of
from schemas.json_schema import DIALECT
from schemas.messages import SnapshotRequested
from tests.component.populated import LISTING, populate
from tests.component.served import Served
from tests.fixtures.node import Node
from tests.ingress_app import PLATFORM_SECRET, FakeBroker, bearer, settings, webhook
from tests.json_schemas import faults, strict

OPERATOR = {"Authorization": "Bearer operator-of-the-tests"}
PARSE = Path(__file__).parent / "parse_asyncapi.js"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """Without a store: documents need none."""
    async with Served(site_uri="https://gateway.example", event_source="https://events.example/") as made:
        yield made


@pytest.fixture
async def populated(database_url: str) -> AsyncIterator[Served]:
    """With one of everything in the store."""
    async with Served(database_url=database_url) as made:
        await populate(made.parts.store)
        yield made


# --- served --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/openapi.json", "application/vnd.oai.openapi+json; version=3.1.0"),
        ("/asyncapi.json", "application/vnd.aai.asyncapi+json; version=3.0.0"),
        ("//schemas/", "application/json"),
        (f"/schemas/listing.changed/{ListingChanged.SCHEMA_VERSION}/", "application/schema+json"),
        (f"/schemas/cloudevents/sync.held/{SyncHeld.SCHEMA_VERSION}", "application/schema+json"),
        (f"/schemas/messages/SnapshotRequested/{version_of(SnapshotRequested)}", "application/schema+json"),
    ],
)
async def test_documents_are_public_typed_and_cached(served: Served, path: str, kind: str) -> None:
    async with served.session.get(served.url + path) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
        assert answer.headers["Cache-Control"] == "public, max-age=300"
        text = await answer.text()
    assert json.loads(text)
    for secret in (PLATFORM_SECRET, "operator-of-the-tests", "secret-at-syncaroo"):
        assert secret not in text


async def test_every_dataschema_is_served_under_the_id_that_it_has(served: Served) -> None:
    for kind in EVENT_TYPES.values():
        identity = dataschema_of("https://events.example/", kind)
        status, schema = await served.get(identity.removeprefix("https://events.example"))
        assert (status, schema["$schema"], schema["$id"]) == (200, DIALECT, identity)


async def test_the_index_leads_to_every_schema(served: Served) -> None:
    index = (await served.get("/schemas"))[1]["items"]
    assert {"listing.changed", "cloudevents/listing.changed", "messages/PageFetched"} <= {one["name"] for one in index}
    for one in index:
        assert one["url"].startswith("https://gateway.example/schemas/")
        schema = (await served.get(one["url"].removeprefix("https://gateway.example")))[1]
        assert (schema["$id"], schema["description"]) == (one["id"], one["description"])


async def test_a_schema_that_there_is_not_is_a_problem(served: Served) -> None:
    for path in ("listing.changed/0", "messages/listing.changed/1", "cloudevents/x/1", "../x", "a/b/c"):
        status, problem = await served.get(f"/schemas/{path}")
        assert (status, problem["type"]) == (404, "/problems/not-found")


# --- read by others ------------------------------------------------------------------------------------------------


async def test_an_openapi_validator_accepts_what_is_served(served: Served) -> None:
    OpenAPIV31SpecValidator((await served.get("/api/openapi.json"))[1]).validate()


async def test_asyncapis_parser_accepts_what_is_served(served: Served, node: Node) -> None:
    assert await node.run(PARSE, f"{served.url}/asyncapi.json") == (0, ["3.0.0: 5 channels, 3 operations"])


async def test_asyncapis_parser_refuses_what_is_none(served: Served, node: Node, tmp_path: Path) -> None:
    """The parser follows references and knows bindings; examples are held against their schemas elsewhere."""
    for number, (old, new) in enumerate(
        [
            ('"action":"send"', '"action":"post"'),
            ("#/components/messages/SyncHeld", "#/components/messages/SyncHold"),
            ('"type":"topic"', '"type":"tropic"'),
        ]
    ):
        document = json.dumps((await served.get("/asyncapi.json"))[1], separators=(",", ":"))
        assert old in document
        path = tmp_path / f"{number}.json"
        path.write_text(document.replace(old, new))
        code, said = await node.run(PARSE, path)
        assert (code, said[0].partition(" ")[0] in ("error", "warning")) == (1, True), said


# --- held against the code -----------------------------------------------------------------------------------------


def routes_of(app: web.Application) -> set[tuple[str, str]]:
    found = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    return {(method, path) for method, path in found if method != "HEAD" or ("GET", path) not in found}


@pytest.mark.parametrize("api_path", ["/api/", "/", "/sync/v2"])
async def test_every_route_is_described_and_nothing_else(api_path: str) -> None:
    chosen = settings(api_path=api_path, ops_port=65_535)
    parts = Parts(chosen, FakeBroker())
    public, operators = routes_of(create_app(chosen, parts)), routes_of(create_ops_app(chosen, parts))
    paths = openapi(place_of(chosen.site, chosen.webhook))["paths"]
    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == public | operators
    await parts.store.close()


CALLS: dict[str, tuple[dict[str, str], Any]] = {
    # operation: headers, body; those that are not here are asked as an operator, without a body
    "receiveWebhook": (bearer(), webhook()),
    "receiveWebhookAtRoot": (bearer(), webhook()),
    "checkConnection": (bearer(), None),
    "checkConnectionAtRoot": (bearer(), None),
    "putUser": (OPERATOR, {"login": "ada", "password": "secret"}),
    "putLocations": (OPERATOR, {"1198": {"ID": "1198", "name": "London", "status": "active"}}),
    "putLocation": (OPERATOR, {"ID": "1198", "name": "London", "status": "active", "resources": []}),
}
LAST = ("resyncConnection", "approveHeld", "discardHeld", "replayDeadLetter")
ELSEWHERE = {"exchangeToken", "followConfirm"}
"""Held against their structs by the tests of the token endpoint and of /confirm: they need a code."""


async def test_no_answer_has_a_member_that_is_not_described(populated: Served) -> None:
    """Every operation with a JSON answer is called with success, and its lists are not empty."""
    document = (await populated.get("/api/openapi.json"))[1]
    assert await populated.send() == 200, "its hash does not match, so that it is remembered"
    dead_letters = await call(populated, "GET", "/admin/v1/dead-letters", OPERATOR, None)
    ids = {"id": dead_letters[1]["items"][0]["id"], "listingId": LISTING}
    described = {one["operationId"]: (path, method, one) for path, ones in document["paths"].items()
                 for method, one in ones.items() if json_of(one)}  # fmt: skip
    for name in sorted(described.keys() - ELSEWHERE, key=lambda one: (one in LAST, one)):
        path, method, operation = described[name]
        headers, body = CALLS.get(name, (OPERATOR, None))
        status, answer = await call(populated, method, path_of(path, operation, ids), headers, body)
        assert status in json_of(operation), (name, status, answer)
        schema = {**json_of(operation)[status], "components": document["components"]}
        assert faults(strict(schema), answer) == [], name
        assert not isinstance(answer, dict) or answer.get("items") != [], f"{name}: nothing was shown"


def json_of(operation: dict[str, Any]) -> dict[int, Any]:
    """Success's statuses with the schemas of their JSON."""
    answers = {int(status): one.get("content", {}) for status, one in operation["responses"].items()}
    return {
        status: content["application/json"]["schema"]
        for status, content in answers.items()
        if status < 300 and "application/json" in content
    }


def path_of(path: str, operation: dict[str, Any], ids: dict[str, str]) -> str:
    """The address with the parameters' examples in it, those of the query only where they must be given."""
    examples = {one["name"]: ids.get(one["name"], one.get("example")) for one in operation["parameters"]}
    needed = [one["name"] for one in operation["parameters"] if one["in"] == "query" and one["required"]]
    query = "&".join(f"{name}={examples[name]}" for name in needed)
    return re.sub(r"{(\w+)}", lambda found: str(examples[found[1]]), path) + (f"?{query}" if query else "")


async def call(served: Served, method: str, path: str, headers: dict[str, str], body: Any) -> tuple[int, Any]:
    sent = {} if body is None else {"json": body}
    async with served.session.request(method, served.url + path, headers=headers, **sent) as answer:
        return answer.status, json.loads(await answer.read())


def test_a_member_that_is_not_described_is_found() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "object", "properties": {}}}}}
    assert faults(schema, {"a": [{"b": 1}]}) == []
    assert faults(strict(schema), {"a": [{"b": 1}]}) != []
    assert faults(strict(schema), {"b": 1}) != []
