"""The documents in the repository are those that the code makes; a schema is not broken under its version."""

from __future__ import annotations

import shutil
import sys
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Annotated, get_args

import msgspec
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from common.broker.topology import Stage
from common.codec import loads
from common.store.events import headers_of
from ingress.documents import examples
from ingress.documents.asyncapi import asyncapi
from ingress.documents.files import files
from ingress.documents.messages import HEADERS_OF
from ingress.documents.openapi import openapi
from ingress.documents.place import EXAMPLE, VERSION, Place
from ops.cli import main
from ops.commands.schemas import HOW
from schemas.catalogue import DOCUMENTS, Published, catalogue, earlier, published, version_of
from schemas.events import EVENT_TYPES, EventData, GrantChanged, ListingChanged
from schemas.json_schema import components, document
from schemas.keeping import Comparison, compare
from schemas.messages import REGISTRY
from tests.json_schemas import faults

ELSEWHERE = Place("https://gateway.example", "/sync/v2", "https://events.example/", webhook_status=204)


def kept() -> dict[str, str]:
    return {path.relative_to(DOCUMENTS).as_posix(): path.read_text() for path in DOCUMENTS.rglob("*.json")}


def test_the_documents_in_the_repository_are_those_that_the_code_makes() -> None:
    """`make schemas` writes them."""
    assert compare(kept(), files(EXAMPLE), published(EXAMPLE.source)) == Comparison([], [], [], [])


def test_every_event_and_every_message_is_there() -> None:
    places = {one.place for one in catalogue("x")}
    assert places == {
        *(f"{name}/{kind.SCHEMA_VERSION}" for name, kind in EVENT_TYPES.items()),
        *(f"cloudevents/{name}/{kind.SCHEMA_VERSION}" for name, kind in EVENT_TYPES.items()),
        *(f"messages/{name}/{version_of(kind)}" for name, kind in REGISTRY.items()),
    }
    assert set(EVENT_TYPES.values()) == set(EventData.__subclasses__())


@pytest.mark.parametrize("one", catalogue(ELSEWHERE.source), ids=lambda one: one.place)
def test_every_schema_is_one_and_says_what_it_is(one: Published) -> None:
    Draft202012Validator.check_schema(one.schema)
    assert one.schema["$id"] == f"https://events.example/schemas/{one.place}"
    assert one.schema["title"]
    assert one.schema["description"].endswith(".")
    assert "§" not in one.schema["description"]


def test_earlier_versions_stay(tmp_path: Path) -> None:
    today = GrantChanged.SCHEMA_VERSION
    for place in (f"grant.changed/{today}", "grant.changed/0", "messages/Gone/1", "grant.changed/next"):
        path = tmp_path / f"{place}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"$id":"{EXAMPLE.source}/schemas/{place}","title":"https://yourapp.com"}}')
    (tmp_path / "openapi.json").write_text("{}")
    found = earlier("https://events.example/", tmp_path)
    assert [(one.place, one.readers, one.current) for one in found] == [
        ("grant.changed/0", "subscribers", False),
        ("messages/Gone/1", "ourselves", False),
    ]
    assert found[0].schema == {"$id": "https://events.example/schemas/grant.changed/0", "title": "https://yourapp.com"}


# --- asyncapi.json, openapi.json -----------------------------------------------------------------------------------


def test_the_documents_have_the_version_of_the_gateway() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=lambda kind: kind.TYPE)
def test_the_examples_of_events_fit_and_their_headers_are_the_relays(kind: type[EventData]) -> None:
    schemas = {one.place: one.schema for one in catalogue(EXAMPLE.source)}
    message = asyncapi(EXAMPLE)["components"]["messages"][kind.__name__]
    (example,) = message["examples"]
    assert faults(schemas[f"cloudevents/{kind.TYPE}/{kind.SCHEMA_VERSION}"], example["payload"]) == []
    assert example["headers"] == headers_of(examples.EVENTS[kind])
    assert faults(message["headers"], example["headers"]) == []
    always, sometimes = HEADERS_OF[kind]
    assert {*always, *sometimes} == set(example["headers"])


def test_the_example_of_a_request_fits() -> None:
    message = asyncapi(EXAMPLE)["components"]["messages"]["SnapshotRequested"]
    schema = document(REGISTRY["SnapshotRequested"], "x")
    assert [faults(schema, one["payload"]) for one in message["examples"]] == [[]]


def test_every_message_has_a_channel() -> None:
    made = asyncapi(EXAMPLE)
    used = {name for channel in made["channels"].values() for name in channel["messages"]}
    assert used == set(made["components"]["messages"])
    assert used == {kind.__name__ for kind in EVENT_TYPES.values()} | set(REGISTRY)


def test_the_work_channel_has_every_stage_and_every_message_that_goes_there() -> None:
    work = asyncapi(EXAMPLE)["channels"]["work"]
    assert work["parameters"]["stage"]["enum"] == list(get_args(Stage))
    assert set(work["messages"]) == set(REGISTRY)


@pytest.mark.parametrize("place", [EXAMPLE, ELSEWHERE, Place("http://localhost:8080", "", "here")])
def test_openapi_is_openapi(place: Place) -> None:
    made = openapi(place)
    OpenAPIV31SpecValidator(made).validate()
    assert made["servers"] == [{"url": place.site_uri}]
    assert f"{place.prefix}/update" in made["paths"]
    assert str(place.webhook_status) in made["paths"]["/update"]["post"]["responses"]
    operations = [one["operationId"] for path in made["paths"].values() for one in path.values()]
    assert len(set(operations)) == len(operations)


def test_a_document_that_is_none_is_refused() -> None:
    made = openapi(EXAMPLE)
    del made["paths"]["/healthz"]["get"]["responses"]["200"]["description"]
    assert list(OpenAPIV31SpecValidator(made).iter_errors())


# --- how a schema is made ------------------------------------------------------------------------------------------


class Inner(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Something.

    With `inner_at`.
    """

    inner_at: datetime | None = None


class Outer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """All of it."""

    some_at: datetime
    inners: list[Inner]
    by_name: dict[str, Inner]
    id: Annotated[str, msgspec.Meta(description="Ours.")]


def test_a_schema_has_formats_names_and_words_as_they_are_on_the_wire() -> None:
    schema = document(Outer, "https://x/schemas/outer/1")
    assert list(schema)[:5] == ["$schema", "$id", "title", "description", "type"]
    assert schema["properties"]["someAt"] == {"type": "string", "format": "date-time"}
    assert schema["properties"]["id"] == {"description": "Ours.", "type": "string"}
    inner = schema["$defs"]["Inner"]
    assert inner["description"] == "Something. With `innerAt`."
    assert inner["properties"]["innerAt"]["anyOf"][0] == {"type": "string", "format": "date-time"}


def test_what_is_no_struct_has_a_schema_too() -> None:
    (root,), named = components([dict[str, Inner]], "#/there/{name}")
    assert root == {"type": "object", "additionalProperties": {"$ref": "#/there/Inner"}}
    assert list(named) == ["Inner"]


# --- gateway schemas -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of what the repository keeps."""
    shutil.copytree(DOCUMENTS, tmp_path / "documents")
    return tmp_path / "documents"


def gateway(monkeypatch: pytest.MonkeyPatch, command: str, folder: Path, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gateway", "schemas", command, "--folder", str(folder), *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def path_of(folder: Path, kind: type[EventData]) -> Path:
    """The file of the schema of its data."""
    return folder / kind.TYPE / f"{kind.SCHEMA_VERSION}.json"


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))


def test_check_finds_every_difference(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert gateway(monkeypatch, "check", folder) == 0
    assert capsys.readouterr().out == ""
    (folder / "asyncapi.json").unlink()
    change(folder / "openapi.json", '"title": "Syncaroo Gateway"', '"title": "Another"')
    (folder / "grant.changed" / "next.json").write_text("{}")
    assert gateway(monkeypatch, "check", folder) == 1
    assert capsys.readouterr().out.splitlines() == [
        "asyncapi.json: differs; run `make schemas`",
        "openapi.json: differs; run `make schemas`",
        "grant.changed/next.json: nothing makes it; delete it",
    ]
    assert gateway(monkeypatch, "check", folder, "--json") == 1
    assert loads(capsys.readouterr().out.encode()) == {
        "missing": ["asyncapi.json"], "changed": ["openapi.json"], "stray": ["grant.changed/next.json"], "broken": [],
    }  # fmt: skip


def test_write_mends_what_does_not_break(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "asyncapi.json").unlink()
    change(path_of(folder, GrantChanged), "Our own access", "Access")
    assert gateway(monkeypatch, "write", folder) == 0
    assert {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.json")} == kept()


def test_write_refuses_to_break_a_schema_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    """The kept ones knew a member more and a value fewer than the code."""
    change(path_of(folder, GrantChanged), '"properties": {', '"properties": {"account": {"type": "string"},')
    change(path_of(folder, ListingChanged), '"deleted",\n', "")
    item_gone = f"messages/ItemGone/{version_of(REGISTRY['ItemGone'])}"
    change(folder / f"{item_gone}.json", '"source"\n', '"source", "recheck"\n')
    (folder / "asyncapi.json").unlink()
    before = {path: path.read_text() for path in folder.rglob("*.json")}

    assert gateway(monkeypatch, "write", folder) == 1

    no_history, *lines = capsys.readouterr().err.splitlines()
    assert no_history.startswith("Not compared with what the schemas were before: ")
    assert lines == [
        f'listing.changed/{ListingChanged.SCHEMA_VERSION}: change: the value "deleted" is new',
        f"grant.changed/{GrantChanged.SCHEMA_VERSION}: account: the member is gone",
        f"{item_gone}: recheck: the member was required and may be missing now",
        HOW,
    ]
    assert HOW.startswith("The version must go up")
    assert {path: path.read_text() for path in folder.rglob("*.json")} == before
