"""`gateway users`, `inventory` and `connections` as a person or a script runs them, against a running ingress."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from common.codec import dumps, loads
from ops.admin import AdminApi
from schemas.tables import ConnectionRow, UserRow
from tests.component.gateway_parts import LOCATIONS, authorize
from tests.component.terminal_parts import Terminal, terminal_at

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""What is said is the same on both; the stores are tested on both."""


@pytest.fixture
async def terminal(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Terminal]:
    async with terminal_at(database_url, monkeypatch, tmp_path) as found:
        yield found


def put(name: str, content: str) -> None:
    Path(name).write_bytes(content.encode(errors="surrogateescape"))


# --- users ------------------------------------------------------------------------------------------------------------


async def test_a_user_s_life(terminal: Terminal) -> None:
    words = ("users", "put", "1", "--login", "ada")
    assert "1 ada" in await terminal.says(*words, "--ask-password", typed="s3cret\ns3cret\n")
    assert (await terminal.gateway.log_in(authorize(), "ada", "s3cret")).status == 303
    put("password", "another one\r\nnot this\n")
    shown = await terminal.says("users", "put", "1", "--password-file", "password")
    assert "another" not in shown
    assert await terminal.result("users", "put", "2") == {"userId": "2", "login": None}
    assert [one["userId"] for one in await terminal.result("users", "list")] == ["1", "2"]
    assert "1 ada" in await terminal.says("users", "list")
    terminal.gateway.http.session.cookie_jar.clear()
    assert (await terminal.gateway.log_in(authorize(), "ada", "another one")).status == 303
    assert (await terminal.gateway.submit(authorize(), decision="allow")).status == 303
    shown = await terminal.says("users", "show", "1")
    assert "0 locations are known of the platform" in shown
    assert "99 authorised" in shown
    assert "404" in await terminal.refusal("users", "show", "3")


async def test_it_is_said_what_was_done_and_who_cannot_log_in_yet(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("password", "s3cret")
    said = await terminal.says("users", "put", "1")
    assert "user 1: created cannot log in yet: no login and no password" in said
    said = await terminal.says("users", "put", "1", "--password-file", "password")
    assert "user 1: changed cannot log in yet: no login, unless" in said
    assert (await terminal.says("users", "put", "1", "--login", "ada")).endswith("user 1: changed")
    assert "cannot log in yet: no password" in await terminal.says("users", "put", "2", "--login", "bob")
    done = await terminal.says("users", "put", "3", "--login", "eve", "--password-file", "password")
    assert done.endswith("user 3: created")
    for name, value in (("ISSUER", "https://login.example"), ("CLIENT_ID", "us"), ("CLIENT_SECRET", "s3cret")):
        monkeypatch.setenv(f"OIDC_{name}", value)
    assert (await terminal.says("users", "put", "4")).endswith("user 4: created")


async def test_a_password_may_come_by_stdin_and_is_repeated_where_it_is_asked(terminal: Terminal) -> None:
    await terminal.says("users", "put", "1", "--login", "ada", "--password-file", "-", typed="ada-password\n")
    await terminal.gateway.code()
    await terminal.refusal("users", "put", "1", "--password-file", "-", typed="\n", code=2)
    await terminal.refusal("users", "put", "1", "--ask-password", typed="one\nanother\n")
    await terminal.gateway.code()


async def test_a_person_is_erased_only_after_a_yes(terminal: Terminal) -> None:
    await terminal.gateway.add_user(locations=LOCATIONS)
    await terminal.gateway.code()
    said = await terminal.refusal("users", "delete", "1", typed="n\n")
    assert "99" in said
    assert "erase user 1" in said
    assert "4 locations are known" in " ".join(said.split())
    await terminal.refusal("users", "delete", "1", typed="")
    await terminal.refusal("users", "delete", "1", "--json", code=2)
    assert len(await terminal.gateway.rows(UserRow)) == 1
    assert await terminal.result("users", "delete", "1", "--yes") == {"erased": "1", "connections": [99]}
    assert await terminal.gateway.rows(UserRow) == []
    assert "404" in await terminal.refusal("users", "delete", "1", "--yes")
    (connection,) = await terminal.result("connections", "list")
    assert (connection["userId"], connection["state"]) == (None, "revoked")


# --- inventory --------------------------------------------------------------------------------------------------------

CSV = """locationId;locationName;locationStatus;resourceId;resourceName;resourceType;resourceStatus
1;London;active;7;Room;meeting-room;active
1;London;active;8;Desk;hot-desk;draft
3;Oslo;draft;;;;

"""
FROM_CSV: dict[str, Any] = {
    "1": {"ID": "1", "name": "London", "status": "active", "resources": [
        {"ID": "7", "name": "Room", "status": "active", "type": "meeting-room"},
        {"ID": "8", "name": "Desk", "status": "draft", "type": "hot-desk"},
    ]},
    "3": {"ID": "3", "name": "Oslo", "status": "draft"},
}  # fmt: skip


async def test_a_file_is_compared_before_anything_is_done(terminal: Terminal) -> None:
    await terminal.gateway.add_user(locations={
        "1": FROM_CSV["1"] | {"name": "Londn", "resources": [FROM_CSV["1"]["resources"][0] | {"status": "draft"}]},
        "2": {"ID": "2", "name": "Paris", "status": "active"},
    })  # fmt: skip
    before = await terminal.result("inventory", "show", "1")
    put("listings.csv", CSV)
    words = ("inventory", "import", "listings.csv", "--user", "1")
    dry = await terminal.run(*words, "--dry-run", "--json")
    assert dry.exit_code == 3, "for scripts: something would change"
    assert loads(dry.stdout.encode()) == {
        "changes": [
            {"userId": "1", "change": "changed", "locationId": "1", "name": "London", "details": [
                "name: Londn → London", "resource 8 added", "resource 7 status: draft → active",
            ]},
            {"userId": "1", "change": "added", "locationId": "3", "name": "Oslo", "details": ["draft, 0 resources"]},
            {"userId": "1", "change": "deleted", "locationId": "2", "name": "Paris", "details": []},
        ],
        "done": False,
    }  # fmt: skip
    said = await terminal.refusal(*words, typed="n\n")
    assert "3 to be changed, 0 as they are" in said
    await terminal.refusal(*words, "--json", code=2)
    assert await terminal.result("inventory", "show", "1") == before
    assert "done" in await terminal.says(*words, typed="y\n")
    gone = {"2": {"ID": "2", "name": "Paris", "status": "deleted"}}
    assert await terminal.result("inventory", "show", "1") == FROM_CSV | gone
    assert await terminal.says(*words, "--dry-run") == "nothing changes"
    assert (await terminal.result(*words, "--yes"))["changes"] == []
    assert "1 8 Desk draft hot-desk" in await terminal.says("inventory", "show", "1")


async def test_what_is_shown_can_be_imported(terminal: Terminal) -> None:
    await terminal.gateway.add_user(locations=LOCATIONS)
    shown = dumps(await terminal.result("inventory", "show", "1"))
    await terminal.gateway.add_user("2", "bob")
    result = await terminal.run("inventory", "import", "-", "--user", "2", "--yes", "--json", typed=shown)
    assert loads(result.stdout.encode())["done"] is True, result.output
    assert await terminal.result("inventory", "show", "2") == LOCATIONS


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.json", "[]", "the body must be a map"),
        ("a.json", '{"1":{"ID":"1","name":"x","status":"sold"}}', "sold"),
        ("a.json", '{"1":{},"1":{}}', "a.json: "),
        ("a.csv", "", "line 1 must name each of these columns once: locationId,"),
        ("a.csv", CSV.replace("resourceType", "kind"), "line 1 must name"),
        ("a.csv", CSV.replace(";hot-desk;draft", ";hot-desk"), "line 3 has 6 cells, line 1 has 7"),
        ("a.csv", CSV.replace("London;active;8", "Londn;active;8"), "line 3: location 1 has another name"),
        ("a.csv", CSV.replace(";8;", ";7;"), "two resources of a location have the same ID"),
        ("a.csv", CSV.replace("Oslo", '"Oslo'), "line "),
        ("a.csv", CSV.replace("3;Oslo", ";Oslo"), "must not be empty"),
        ("a.csv", CSV.replace("Room", "R\udcff"), "is not UTF-8"),
        ("a.csv", CSV.replace("locationId", "userId;locationId"), "Give either --user, or a column userId"),
        ("nowhere.csv", None, "nowhere.csv: the file cannot be read"),
    ],
)
async def test_a_file_that_is_none_is_refused_whole(
    terminal: Terminal, name: str, content: str | None, why: str
) -> None:
    await terminal.gateway.add_user(locations=LOCATIONS)
    if content is not None:
        put(name, content)
    assert why in await terminal.refusal("inventory", "import", name, "--user", "1", "--yes")
    assert await terminal.result("inventory", "show", "1") == LOCATIONS


async def test_a_file_may_be_about_many_users(terminal: Terminal) -> None:
    for user_id in ("1", "2", "3"):
        await terminal.gateway.add_user(user_id, user_id, locations=LOCATIONS)
    heads, *lines = CSV.strip().split("\n")
    put("all.csv", "\n".join([f"userId;{heads}", *(f"1;{line}" for line in lines), f"2;{lines[-1]}"]))
    put("all.json", dumps({"1": FROM_CSV, "2": {"3": FROM_CSV["3"]}}).decode())
    for name in ("all.csv", "all.json"):
        dry = await terminal.run("inventory", "import", name, "--dry-run", "--json")
        assert dry.exit_code == 3
        assert {one["userId"] for one in loads(dry.stdout.encode())["changes"]} == {"1", "2"}
    await terminal.says("inventory", "import", "all.csv", "--yes")
    assert await terminal.says("inventory", "import", "all.json", "--dry-run") == "nothing changes"
    for user_id, mine in (("1", FROM_CSV), ("2", {"3": FROM_CSV["3"]})):
        shown = await terminal.result("inventory", "show", user_id)
        assert {one: value for one, value in shown.items() if value["status"] != "deleted"} == mine
    assert await terminal.result("inventory", "show", "3") == LOCATIONS


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.json", dumps(LOCATIONS).decode(), "give --user"),
        ("a.json", '{"1":{"7":{"ID":"8"}}}', "user 1: "),
        ("a.json", '{"1":7}', "user 1: "),
        ("a.csv", CSV, "Give either --user, or a column userId"),
        ("a.csv", CSV.replace("locationId", "userId;locationId").replace("\n1;", "\n;1;"), "line 2 has no userId"),
        ("a.json", '{"1":{},"9":{}}', "404"),
    ],
)
async def test_a_file_about_many_users_is_refused_whole(terminal: Terminal, name: str, content: str, why: str) -> None:
    await terminal.gateway.add_user(locations=LOCATIONS)
    put(name, content)
    assert why in await terminal.refusal("inventory", "import", name, "--yes")
    assert await terminal.result("inventory", "show", "1") == LOCATIONS


async def test_a_map_that_is_too_large_is_refused_before_anything_is_done(terminal: Terminal) -> None:
    for user_id in ("1", "7"):
        await terminal.gateway.add_user(user_id, user_id, locations=LOCATIONS)
    large = {str(n): {"ID": str(n), "name": "x" * 200, "status": "active"} for n in range(1100)}
    put("all.json", dumps({"1": {}, "7": large}).decode())
    for more in ("--dry-run", "--yes"):
        said = await terminal.refusal("inventory", "import", "all.json", more)
        assert "user 7: 266 KiB, at most 256 KiB" in said
    put("one.json", dumps(large).decode())
    assert "user 7: 266 KiB" in await terminal.refusal("inventory", "import", "one.json", "--user", "7", "--dry-run")
    assert await terminal.result("inventory", "show", "1") == LOCATIONS


async def test_when_one_of_many_is_refused_it_is_said_who_was_done(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user_id in ("1", "2", "3"):
        await terminal.gateway.add_user(user_id, user_id)
    put("all.json", dumps(dict.fromkeys(("1", "2", "3"), FROM_CSV)).decode())
    as_it_is = AdminApi.put_locations

    async def erased_before(admin: AdminApi, user_id: str, locations: dict[str, Any]) -> None:
        if user_id == "2":
            await admin.delete_user(user_id)
        await as_it_is(admin, user_id, locations)

    with monkeypatch.context() as patched:
        patched.setattr(AdminApi, "put_locations", erased_before)
        said = await terminal.refusal("inventory", "import", "all.json", "--yes")
    assert "user 1: done" in said
    assert "user 2: PUT /admin/v1/users/2/locations: 404" in said
    assert "done before: 1" in said
    assert await terminal.result("inventory", "show", "3") == {}
    put("rest.json", dumps(dict.fromkeys(("1", "3"), FROM_CSV)).decode())
    said = await terminal.says("inventory", "import", "rest.json", "--yes")
    assert "user 3: done" in said
    assert "user 1: done" not in said, "nothing was to do"


async def test_the_documented_csv_is_one(terminal: Terminal) -> None:
    await terminal.gateway.add_user()
    text = (Path(__file__).parents[2] / "docs/admin-api.md").read_text(encoding="utf-8")
    put("listings.csv", text[text.index("locationId,") :].partition("```")[0])
    await terminal.says("inventory", "import", "listings.csv", "--user", "1", "--yes")
    shown = await terminal.result("inventory", "show", "1")
    assert [(one["ID"], len(one.get("resources", ()))) for one in shown.values()] == [("1198", 1), ("1199", 0)]


@pytest.mark.parametrize("change", ["\ufeff{}", "{}", "{}\r\n"])
async def test_spreadsheets_write_csv_in_their_own_ways(terminal: Terminal, change: str) -> None:
    await terminal.gateway.add_user()
    lines = change.format(CSV.replace(";", ",").replace("Oslo", '"Oslo, ""north"""').replace("\n", "\r\n"))
    put("listings", lines)
    await terminal.says("inventory", "import", "listings", "--user", "1", "--yes")
    assert (await terminal.result("inventory", "show", "1"))["3"]["name"] == 'Oslo, "north"'


# --- connections ------------------------------------------------------------------------------------------------------


async def test_connections_are_listed_shown_and_revoked(terminal: Terminal) -> None:
    gateway = terminal.gateway
    await gateway.add_user()
    await gateway.add_user("2", "bob")
    await gateway.code(99)
    await gateway.code(100, "bob")
    assert [one["connectionId"] for one in await terminal.result("connections", "list")] == [99, 100]
    assert [one["connectionId"] for one in await terminal.result("connections", "list", "--user", "2")] == [100]
    assert "100 2 authorised" in await terminal.says("connections", "list")
    assert "state authorised" in await terminal.says("connections", "show", "99")
    await terminal.refusal("connections", "revoke", "99", typed="n\n")
    await terminal.refusal("connections", "revoke", "99", "--json", code=2)
    assert {row.state for row in await gateway.rows(ConnectionRow)} == {"authorised"}
    assert "connection 99: is revoked" in await terminal.says("connections", "revoke", "99", typed="y\n")
    assert (await terminal.result("connections", "revoke", "99", "--yes"))["was"] == "revoked"
    assert {row.connection_id: row.state for row in await gateway.rows(ConnectionRow)} == {
        99: "revoked", 100: "authorised"
    }  # fmt: skip
    assert "404" in await terminal.refusal("connections", "revoke", "7", "--yes")
