"""The stand-in's pure parts against the guide's transcripts: what it sends, what it accepts, what it refuses."""

import base64
import copy
import hashlib
import hmac
import json
from typing import Any

import pytest

from sandbox import answers, hashing, paging, webhooks
from sandbox.config import Blank, SandboxConfig
from sandbox.oauth import AUTHORIZE_FIELDS, TOKEN_FIELDS
from sandbox.state import Connection
from sandbox.world import Change
from tests.guide import FOLDER, names, portal, transcript

JSON = "application/json; charset=UTF-8"
CHANGE = Change(
    kind="price",
    path="/v1/locations/1/resources/2",
    location="1",
    resource="2",
    resource_type="meeting-room",
    attribute="resources",
)
CONNECTION = Connection(connection_id=99, locations={"1": "1198"}, resources={"2": "19284"})
CONFIG = SandboxConfig(platform_url="https://yourapp.com")


@pytest.mark.parametrize("name", names())
def test_every_transcript_reads(name: str) -> None:
    found = transcript(name)
    if name.endswith("-answer"):
        assert found.status == 200
        assert isinstance(found.json, dict)
    else:
        assert found.method in {"GET", "POST"}
        assert found.url.startswith("https://")


def test_the_readme_names_every_transcript() -> None:
    readme = (FOLDER / "README.md").read_text()
    assert [name for name in names() if f"`{name}`" not in readme] == []


# what it sends


def test_webhook_has_the_guides_members_in_the_guides_order() -> None:
    sent = json.loads(hashing.signed(webhooks.body(CONNECTION, CHANGE, "https://api/x", CONFIG), *_key()))
    printed = transcript("webhook").json
    assert list(sent) == list(printed)
    assert list(sent["metaData"]) == list(printed["metaData"])
    assert _types(sent) == _types(printed)
    assert {n: v for n, v in sent.items() if n not in {"metaData", "hash"}} == {
        n: v for n, v in printed.items() if n not in {"metaData", "hash"}
    }


def test_later_schema_adds_its_members_only() -> None:
    config = SandboxConfig(later_schema=True)
    new = Change(**{**CHANGE.__dict__, "new": True})
    sent = webhooks.body(CONNECTION, new, "https://api/x", config)
    printed = transcript("webhook").json
    assert set(sent) == set(printed) - {"hash"} | {"action", "actionCallback"}
    assert set(sent["metaData"]) == set(printed["metaData"]) | {"syncarooId"}


@pytest.mark.parametrize(("blank", "shown"), [(Blank.NULL, None), (Blank.EMPTY, ""), (Blank.ABSENT, "absent")])
def test_a_locations_webhook_has_no_resource(blank: Blank, shown: str | None) -> None:
    change = Change(
        kind="rename", path="/v1/locations/1", location="1", resource=None, resource_type=None, attribute="locations"
    )
    meta = webhooks.body(CONNECTION, change, "https://api/x", SandboxConfig(blank=blank))["metaData"]
    assert meta.get("resourceId", "absent") == shown


def test_portal_values_give_the_guides_addresses() -> None:
    told = portal()
    assert CONFIG.platform_url == told["siteUri"]
    assert CONFIG.auth_uri == told["authUri"] == _plain(transcript("authorize-request").url)
    assert CONFIG.auth_token_uri == told["authTokenUri"] == transcript("token-request").url
    assert CONFIG.webhook_uri == transcript("webhook").url
    assert CONFIG.check_connection_uri == _plain(transcript("check-request").url)


def test_addresses_as_the_guide_contradicts_itself() -> None:
    naive = SandboxConfig(platform_url="https://yourapp.com", naive_joins=True)
    site = SandboxConfig(platform_url="https://yourapp.com", webhook_under_site=True)
    assert naive.webhook_uri == "https://yourapp.com/api//update/"
    assert site.webhook_uri == "https://yourapp.com/update/"


def test_pages_have_the_guides_members_in_the_guides_order() -> None:
    page = paging.cut(9, 3, 2)
    assert page is not None
    made = paging.pages("https://api/v1/locations", page)
    printed = transcript("api-answer").json["pages"]
    assert list(made) == list(printed)
    assert _types(made) == _types(printed)


# what it expects


def test_oauth_fields_are_the_guides() -> None:
    assert set(transcript("syncaroo-authorize-request").query) == AUTHORIZE_FIELDS
    assert set(transcript("syncaroo-token-request").form) == TOKEN_FIELDS["authorization_code"]
    assert set(transcript("syncaroo-refresh-request").form) == TOKEN_FIELDS["refresh_token"]


def test_the_guides_answers_are_accepted() -> None:
    check = transcript("check-answer")
    assert answers.token_mistakes(200, transcript("token-answer").json) == []
    assert answers.check_mistakes(200, check.headers["Content-Type"], check.json, 99) == []


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"expires": "2009-06-15T13:45:30Z"}, "expires"),
        ({"expires": "2009-06-15 13:45:30"}, "expires"),
        ({"expires": 1245073530}, "expires"),
        ({"expires": None}, "expires"),
        ({"accessToken": None}, "accessToken"),
        ({"accessToken": ""}, "accessToken"),
        ({"expiresIn": 600}, "expiresIn"),
        ({"access_token": "x"}, "access_token"),
    ],
)
def test_token_answers_that_deviate_are_refused(changed: dict[str, Any], complaint: str) -> None:
    answer = transcript("token-answer").json | changed
    assert any(complaint in mistake for mistake in answers.token_mistakes(200, answer))


@pytest.mark.parametrize("name", ["accessToken", "expires", "refreshToken"])
def test_token_answers_must_be_complete(name: str) -> None:
    answer = transcript("token-answer").json
    del answer[name]
    assert any(name in mistake for mistake in answers.token_mistakes(200, answer))


CHECK_DEVIATIONS: list[tuple[list[str], Any, str]] = [
    (["connectionId"], "99", "connectionId"),
    (["connectionId"], 98, "connectionId"),
    (["connectionId"], True, "connectionId"),
    (["userId"], 1, "userId"),
    (["user_id"], "1", "user_id"),
    (["locations"], [], "map"),
    (["locations"], None, "map"),
    (["locations", "1198"], "Demo", "object"),
    (["locations", "1198", "ID"], "7120", "another ID"),
    (["locations", "1198", "ID"], 1198, "string"),
    (["locations", "1198", "status"], "open", "status"),
    (["locations", "1198", "name"], None, "name"),
    (["locations", "1198", "title"], "x", "title"),
    (["locations", "1198", "resources"], {}, "list"),
    (["locations", "1198", "resources", "0"], "x", "object"),
    (["locations", "1198", "resources", "0", "type"], 3, "type"),
    (["locations", "1198", "resources", "0", "status"], None, "status"),
    (["locations", "1198", "resources", "0", "capacity"], 3, "capacity"),
]


@pytest.mark.parametrize(("path", "value", "complaint"), CHECK_DEVIATIONS)
def test_check_answers_that_deviate_are_refused(path: list[str], value: Any, complaint: str) -> None:
    answer = copy.deepcopy(transcript("check-answer").json)
    inner = answer
    for step in path[:-1]:
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]
    inner[int(path[-1]) if isinstance(inner, list) else path[-1]] = value
    assert any(complaint in mistake for mistake in answers.check_mistakes(200, JSON, answer, 99))


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "text/html", ""])
def test_check_answers_content_type_is_the_guides(content_type: str) -> None:
    assert answers.check_mistakes(200, content_type, transcript("check-answer").json, 99) != []


def test_no_locations_is_an_empty_map() -> None:
    answer = transcript("check-answer").json | {"locations": {}}
    assert answers.check_mistakes(200, JSON, answer, 99) == []


def test_expires_is_utc() -> None:
    assert answers.expires_at("2009-06-15T13:45:30") == 1245073530


# the hash

BODY = {"b": "ü/", "a": 1}


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("hmac-sha256:sorted:hex", hmac.new(b"k", '{"a":1,"b":"ü/"}'.encode(), "sha256").hexdigest()),
        ("hmac-sha1:compact:hex", hmac.new(b"k", '{"b":"ü/","a":1}'.encode(), "sha1").hexdigest()),
        ("hmac-md5:cut:hex", hmac.new(b"k", '{"b":"ü/","a":1}'.encode(), "md5").hexdigest()),
        ("sha256:php:hex", hashlib.sha256(b'{"b":"\\u00fc\\/","a":1}').hexdigest()),
        ("md5:compact:base64", base64.b64encode(hashlib.md5('{"b":"ü/","a":1}'.encode()).digest()).decode()),
    ],
)
def test_hash_recipes(recipe: str, expected: str) -> None:
    assert hashing.digest(BODY, recipe, "k") == expected


def test_cut_hashes_the_bytes_that_travel_without_the_member() -> None:
    sent = hashing.signed(BODY, "sha1:cut:hex", "")
    cut, _, member = sent.partition(b',"hash":"')
    assert hashlib.sha1(cut + b"}").hexdigest() == member.decode()[:40]


@pytest.mark.parametrize("recipe", ["sha256", "sha512:sorted:hex", "sha1:random:hex", "sha1:cut:octal", "a:b:c:d"])
def test_unknown_recipes_are_refused(recipe: str) -> None:
    with pytest.raises(ValueError, match="recipe"):
        hashing.check_recipe(recipe)


def _key() -> tuple[str, str]:
    return CONFIG.hash_recipe, CONFIG.signing_key


def _plain(url: str) -> str:
    return url.partition("?")[0]


def _types(value: Any) -> Any:
    return {name: _types(inner) for name, inner in value.items()} if isinstance(value, dict) else type(value)
