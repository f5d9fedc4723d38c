"""The `gateway` command: words, JSON and exit codes."""

from __future__ import annotations

import hmac
import re
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from typer.testing import CliRunner

from common.broker.setup import difference
from common.broker.topology import event_queues, work_queues
from common.codec import loads
from common.settings import ManagementSettings
from ops.cli import app, main
from ops.policies import event_policies

COMMANDS = (
    "init",
    "setup",
    "demo",
    "up",
    "topology",
    "portal",
    "users",
    "inventory",
    "connections",
    "status",
    "listings",
    "why",
    "tail",
    "resync",
    "held",
    "dlq",
    "doctor",
    "snapshot",
    "replay",
    "hash",
    "schemas",
    "db",
    "keys",
)
SINGLE = (
    *(
        "init",
        "setup",
        "demo",
        "up",
        "topology",
        "portal",
        "status",
        "listings",
        "why",
        "tail",
        "resync",
        "keys new",
        "keys check",
        "keys forget",
    ),
    *("snapshot", "replay"),
    *("users list", "users show", "users put", "users delete", "inventory show", "inventory import"),
    *("connections list", "connections show", "connections revoke"),
    *("held list", "held approve", "held discard"),
    *(
        "dlq list",
        "dlq show",
        "dlq replay",
        "dlq drop",
        "doctor",
        "hash probe",
        "schemas write",
        "schemas check",
        "db upgrade",
        "db current",
    ),
)


def gateway(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The console script, in this process → its exit code."""
    monkeypatch.setattr(sys, "argv", ["gateway", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.chdir(str(tmp_path))
    for name in ("AMQP_URL", "DATABASE_URL", "ADMIN_TOKEN", "SITE_URI", "OPS_PORT", "PLATFORM_CLIENT_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("command", SINGLE)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])

    assert result.exit_code == 0
    assert f"gateway {command}" in " ".join(result.output.split("Example", 1)[1].split()), result.output


def test_the_list_of_commands_is_complete() -> None:
    result = CliRunner().invoke(app, ["--help"])

    assert all(command in result.output for command in (*COMMANDS, "sandbox"))


def test_wrong_settings_end_with_78_and_a_line_per_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://user:geheim@host/db")

    assert gateway(monkeypatch, "setup") == 78

    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["AMQP_URL", "DATABASE_URL"]
    assert "geheim" not in "".join(lines)


def test_an_ingress_that_is_not_there_is_one_line_and_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", "token-of-the-admin")

    assert gateway(monkeypatch, "status", "--url", "http://127.0.0.1:1") == 1

    said = capsys.readouterr().err
    assert said.startswith("The ingress at http://127.0.0.1:1 does not answer")
    assert said.count("\n") == 1


def test_no_name_asks_for_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", "token-of-the-admin")

    for name in ("", "/", " "):
        assert gateway(monkeypatch, "why", name, "--url", "http://127.0.0.1:1") == 1
        assert capsys.readouterr().err.startswith("Which listing?")


def test_unknown_words_end_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", "token-of-the-admin")

    assert gateway(monkeypatch, "nonsense") == 2
    assert gateway(monkeypatch, "dlq", "replay") == 2, "ids, filters or --all"
    assert gateway(monkeypatch, "dlq", "replay", "1", "--queue", "fetch", "--yes") == 2, "not both"
    assert gateway(monkeypatch, "dlq", "drop", "--all") == 2, "nobody there who could be asked"
    assert gateway(monkeypatch, "dlq", "drop", "--all", "--json") == 2
    assert gateway(monkeypatch, "dlq", "list", "--older-than", "yesterday") == 2
    assert gateway(monkeypatch, "held", "approve", "99", "--json") == 2, "a program cannot be asked"
    assert gateway(monkeypatch, "users", "delete", "1", "--json") == 2
    assert gateway(monkeypatch, "connections", "revoke", "99", "--json") == 2
    assert gateway(monkeypatch, "inventory", "import", "-", "--user", "1") == 2
    assert gateway(monkeypatch, "inventory", "import", "x", "--format", "xml") == 2
    assert gateway(monkeypatch, "users", "put", "1", "--ask-password", "--password-file", "-") == 2
    assert gateway(monkeypatch, "users", "put", "1", "--password-file", "nowhere") == 2
    for words in (
        ("--since", "yesterday"),
        ("--type", "listing"),
        ("--change", "new"),
        ("--limit", "0"),
        ("--kind", "desks"),
    ):
        assert gateway(monkeypatch, "tail", *words) == 2, words


def test_the_portal_gets_the_guides_two_blocks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SITE_URI", "https://yourapp.com")
    monkeypatch.setenv("PLATFORM_CLIENT_ID", "xyz1243")
    monkeypatch.setenv("PLATFORM_CLIENT_SECRET", "s3cret-new,s3cret-old")

    assert gateway(monkeypatch, "portal", "--json") == 0
    masked = loads(capsys.readouterr().out.encode())
    assert gateway(monkeypatch, "portal", "--json", "--show-secret") == 0
    clear = loads(capsys.readouterr().out.encode())

    assert "s3cret" not in masked["yourClientSecret"]
    assert clear == {
        "siteUri": "https://yourapp.com",
        "apiUri": "https://yourapp.com/api/",
        "authUri": "https://yourapp.com/api/oauth/authorize",
        "webhookPath": "/update/",
        "checkConnectionPath": "/check_connection/",
        "yourClientId": "xyz1243",
        "yourClientSecret": "s3cret-new",
        "authTokenUri": "https://yourapp.com/api/oauth/token",
    }


def test_the_topology_as_table_and_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert gateway(monkeypatch, "topology") == 0
    assert "syncaroo.events.log" in capsys.readouterr().out

    assert gateway(monkeypatch, "topology", "--json") == 0
    found = loads(capsys.readouterr().out.encode())
    assert found["exchanges"] == ["syncaroo.work", "syncaroo.events", "syncaroo.log"]
    assert {"syncaroo.token", "syncaroo.fetch", "syncaroo.reconcile"} <= {queue["name"] for queue in found["queues"]}


def test_a_new_key_is_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert gateway(monkeypatch, "keys", "new") == 0

    Fernet(capsys.readouterr().out.strip())


def test_the_schema_before_and_after(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert gateway(monkeypatch, "db", "current") == 1
    assert gateway(monkeypatch, "db", "upgrade") == 0
    assert gateway(monkeypatch, "db", "upgrade") == 0
    capsys.readouterr()
    assert gateway(monkeypatch, "db", "current", "--json") == 0

    found = loads(capsys.readouterr().out.encode())
    assert found["current"] == found["needed"]


def test_the_brokers_words_about_a_difference_become_ours() -> None:
    said = (
        "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'syncaroo.fetch' in vhost 'gateway': "
        "received the value '20' of type 'signedint' but current is none"
    )

    assert difference(said) == "queue syncaroo.fetch exists with another x-delivery-limit (there: none, wanted: 20)"
    assert difference("something  else") == "something else"


def test_the_policies_of_the_events() -> None:
    log, others = event_policies("amqp://guest:guest@localhost/gateway%2Fa", ManagementSettings())

    assert (log.vhost, log.pattern) == ("gateway/a", "^syncaroo[.]events[.]log$")
    assert log.definition["max-age"] == "604800s"
    assert log.command.startswith("rabbitmqctl -p gateway/a set_policy --apply-to queues syncaroo-event-log ")
    assert others.definition == {"max-length": 1_000_000, "max-length-bytes": 1_000_000_000}
    assert others.command.startswith("rabbitmqctl -p gateway/a set_operator_policy --apply-to queues ")


def test_without_a_limit_there_is_to_be_no_operator_policy() -> None:
    unlimited = ManagementSettings(subscriber_max_messages=0, subscriber_max_bytes=0)

    _, others = event_policies("amqp://localhost", unlimited)

    assert others.command == "rabbitmqctl -p / clear_operator_policy syncaroo-subscribers"


@pytest.mark.parametrize(
    ("limits", "log", "others"),
    [
        ({}, "for 7d, 10 GB at most", "a subscriber's queue holds at most 1000000 messages and 1 GB"),
        ({"event_log_max_bytes": 0, "subscriber_max_messages": 0}, "for 7d", "a subscriber's queue holds at most 1 GB"),
        ({"subscriber_max_bytes": 0, "event_log_max_bytes": 1_500_000}, "for 7d, 1.5 MB at most", "1000000 messages"),
        ({"subscriber_max_bytes": 0, "subscriber_max_messages": 0}, "10 GB at most", "have no limit"),
        ({"subscriber_max_bytes": 999}, "10 GB at most", "1000000 messages and 999 bytes"),
    ],
)
def test_what_is_limited_is_said(limits: dict[str, int], log: str, others: str) -> None:
    told = event_policies("amqp://localhost", ManagementSettings(**limits))  # type: ignore[arg-type]  # as they are

    for policy, end in zip(told, (log, others), strict=True):
        assert policy.story.endswith(end)


@pytest.mark.parametrize(
    ("queue", "limited"),
    [("orders", True), ("syncaroo", True), ("syncaroofan", True), ("amq.gen-x", True)]
    + [(queue.name, False) for queue in [*work_queues(()), *event_queues()]],
)
def test_only_queues_of_others_are_limited(queue: str, limited: bool) -> None:
    _, others = event_policies("amqp://localhost", ManagementSettings())

    assert bool(re.search(others.pattern, queue)) is limited


def test_the_probe_names_the_recipes_that_explain_a_hash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    body = b'{"a": 1, "hash": "%s"}'
    known = hmac.new(b"the-secret", b'{"a":1}', "sha1").hexdigest().encode()
    (tmp_path / "right.json").write_bytes(body % known)
    (tmp_path / "wrong.json").write_bytes(body % b"XXXX")
    monkeypatch.setenv("PLATFORM_CLIENT_ID", "syncaroo")
    monkeypatch.setenv("PLATFORM_CLIENT_SECRET", "another,the-secret")

    assert gateway(monkeypatch, "hash", "probe", str(tmp_path / "right.json"), "--json") == 0
    assert loads(capsys.readouterr().out.encode())[str(tmp_path / "right.json")] == [
        "hmac-sha1:sorted:hex",
        "hmac-sha1:compact:hex",
        "hmac-sha1:php:hex",
    ]
    assert gateway(monkeypatch, "hash", "probe", str(tmp_path / "wrong.json")) == 1
    assert "wrong.json: none matches" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    "words",
    [
        ("snapshot",),
        ("snapshot", "--to", "syncaroo.fetch"),
        ("snapshot", "--to", ""),
        ("snapshot", "--to", "q", "--location", ""),
        ("snapshot", "--to", "q", "--type", "resources"),
        ("snapshot", "--to", "q", "--kind", "desks"),
        ("snapshot", "--to", "q", "--connection", str(2**63)),
        ("replay", "--to", "q"),
        ("replay", "--since", "2h", "--to", "syncaroo.events.log"),
        ("replay", "--since", "yesterday", "--to", "q"),
        ("replay", "--since", "2h", "--to", "q", "--json"),
        ("replay", "--since", "2h", "--to", "q", "--change", "renamed"),
        ("replay", "--since", "2h", "--to", "q", "--kind", "desks"),
        ("replay", "--since", "2h", "--to", "q", "--connection", str(2**63)),
        ("replay", "--since", "2h", "--to", "q", "--connection", "99", "--connection", "x"),
        ("replay", "--since", "2h", "--to", "q", "--location", ""),
        ("replay", "--since", "2h", "--to", "q", "--listing", ""),
        ("replay", "--since", "2h", "--to", "q", "--type", "listing.snapshot"),
    ],
)
def test_what_cannot_be_sent_ends_with_2_before_anything_is_opened(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    assert gateway(monkeypatch, *words) == 2
