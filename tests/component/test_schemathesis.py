"""Schemathesis calls every operation of the OpenAPI document that is served, with what it allows and with what not."""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.codec import dumps
from tests.component.populated import populate
from tests.component.served import Served
from tests.ingress_app import PLATFORM_SECRET, bearer
from tests.programs import program

CLI = Path(sys.executable).parent / "st"
SEED = 20260102
EXAMPLES = 5
SECONDS = 100.0
OPERATOR = "Bearer operator-of-the-tests"
REDIRECT = "https://app.syncaroo.com/connection"
OF_A_CONNECTION = ["receiveWebhook", "receiveWebhookAtRoot", "checkConnection", "checkConnectionAtRoot"]
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
"""All but those of whole stories, and `positive_data_acceptance`: that a cursor is one, or that the userId of the body
is that of the address, is nothing that a schema can say."""


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with Served(database_url=database_url) as made:
        await populate(made.parts.store)
        yield made


@pytest.mark.timeout(600)
async def test_every_operation_answers_as_it_is_described(served: Served, tmp_path: Path) -> None:
    """Never 500; no status, type, header or member that the document does not know; nothing taken that it forbids."""
    (tmp_path / "schemathesis.toml").write_text(configuration(await a_dead_letter(served)))
    words = [str(CLI), "--config-file", str(tmp_path / "schemathesis.toml"), "run", f"{served.url}/api/openapi.json"]
    words += ["--url", served.url, "--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS)]
    words += ["--seed", str(SEED), "--max-examples", str(EXAMPLES), "--request-timeout", "10", "--no-color"]
    words += ["--generation-database", "none", "--no-shrink"]
    async with program(words, {}) as running:
        code = await running.wait(SECONDS)
    said = "\n".join(running.lines)
    assert code == 0, said
    described = (await served.get("/api/openapi.json"))[1]["paths"]
    del described["/api/openapi.json"]  # it does not test where it has read the document
    assert f"Tested: {sum(map(len, described.values()))}\n" in said, said


async def a_dead_letter(served: Served) -> str:
    """The id of the one that there is: no schema can make it up."""
    headers = {"Authorization": OPERATOR}
    async with served.session.get(f"{served.url}/admin/v1/dead-letters", headers=headers) as answer:
        return str((await answer.json())["items"][0]["id"])


def configuration(dead_letter: str) -> str:
    """Who calls what: operators, Syncaroo with a connection's token, Syncaroo as a client."""
    basic = b64encode(f"syncaroo:{PLATFORM_SECRET}".encode()).decode()
    operations = [
        ("include-tag", ["operation"], OPERATOR, {}),
        ("include-operation-id", ["replayDeadLetter", "dropDeadLetter"], OPERATOR, {"id": dead_letter}),
        ("include-operation-id", OF_A_CONNECTION, bearer()["Authorization"], {}),
        ("include-operation-id", ["authorize", "decide"], "", {"clientId": "syncaroo", "redirectUri": REDIRECT}),
        ("include-operation-id", ["exchangeToken"], f"Basic {basic}", {}),
    ]
    return "cache.enabled = false\n" + "".join(map(_section, operations))


def _section(operation: tuple[str, list[str], str, dict[str, str]]) -> str:
    by, names, authorization, parameters = operation
    told = "".join(f"parameters.{name} = {_quoted(value)}\n" for name, value in parameters.items())
    headers = f"headers.Authorization = {_quoted(authorization)}\n" if authorization else ""
    return f"[[operations]]\n{by} = {_quoted(names)}\n{headers}{told}"


def _quoted(value: object) -> str:
    """JSON's texts and lists of them are TOML's."""
    return dumps(value).decode()
