"""`gateway init`: what it writes and keeps, who may read it, and that it shows nothing."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.fernet import Fernet
from dotenv import dotenv_values
from pydantic import TypeAdapter
from typer.testing import CliRunner, Result

from common.codec import loads
from common.settings import AmqpUrl, DatabaseUrl
from ops.broker_users import is_hash_of, users
from ops.cli import app, main
from ops.installation import DEFINITIONS, OPERATOR_PASSWORD, OPTIONAL

SITE = "https://yourapp.example"
CLIENT = ("--syncaroo-client-id", "platform-1")


def init(directory: Path, *words: str, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(app, ["init", "--directory", str(directory), *words], input=stdin)
    assert result.exit_code == 0, result.output
    return result


def secrets(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((directory / "secrets").iterdir())}


def report(directory: Path, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = loads(init(directory, "--json", *words).stdout.encode())
    return found


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["gateway", "init", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, " ".join((said.out + said.err).replace("│", " ").split())


def test_it_writes_everything_that_compose_mounts(tmp_path: Path) -> None:
    said = report(tmp_path, "--site", SITE, *CLIENT)

    files = secrets(tmp_path)
    assert {f"secrets/{name}" for name in files} | {".env"} == set(said["written"])
    assert said["missing"] == ["secrets/syncaroo_client_secret"]
    assert all(files[name] == "" for name in OPTIONAL)
    Fernet(files["secret_keys"])
    TypeAdapter(DatabaseUrl).validate_python(files["database_url"])
    for user in users():
        if user.name != "operator":
            address = files[f"amqp_url_{user.name}"]
            TypeAdapter(AmqpUrl).validate_python(address)
            assert urlsplit(address).username == user.name
    settings = dotenv_values(tmp_path / ".env")
    assert settings["SITE_URI"] == SITE
    assert settings["SYNCAROO_CLIENT_ID"] == "platform-1"
    assert (settings["PROXY_HTTP_PORT"], settings["PROXY_HTTPS_PORT"]) == ("80", "443")


def test_two_installations_share_no_secret(tmp_path: Path) -> None:
    for name in ("one", "two"):
        init(tmp_path / name, "--site", SITE)
    one, two = secrets(tmp_path / "one"), secrets(tmp_path / "two")
    assert not {value for value in one.values() if value} & {value for value in two.values() if value}
    assert len({value for value in one.values() if value}) == len([value for value in one.values() if value])


def test_the_broker_gets_the_passwords_that_the_addresses_have(tmp_path: Path) -> None:
    init(tmp_path, "--site", SITE)
    files = secrets(tmp_path)
    hashes = {one["name"]: one["password_hash"] for one in loads(files[DEFINITIONS].encode())["users"]}
    assert set(hashes) == {user.name for user in users()}
    assert is_hash_of(hashes["operator"], files[OPERATOR_PASSWORD])
    for name, found in hashes.items():
        if name != "operator":
            assert is_hash_of(found, urlsplit(files[f"amqp_url_{name}"]).password or "")
    assert urlsplit(files["amqp_management_url"]).password == urlsplit(files["amqp_url_setup"]).password
    assert urlsplit(files["database_url"]).password == files["postgres_password"]


def test_containers_may_read_and_people_may_not(tmp_path: Path) -> None:
    """A container reads as another user; the directory, which it does not see, lets nobody else in."""
    init(tmp_path, "--site", SITE)
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").iterdir()} == {0o644}
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o640


@pytest.mark.parametrize("words", [("--site", SITE), ("--sandbox",), ("--sandbox", "--json")], ids=" ".join)
def test_it_shows_no_secret(tmp_path: Path, words: tuple[str, ...]) -> None:
    said = init(tmp_path, *words).output + init(tmp_path, *words).output
    shown = [name for name, value in secrets(tmp_path).items() if value and value in said]
    assert not shown
    assert "password" not in dotenv_values(tmp_path / ".env")
    settings = (tmp_path / ".env").read_text()
    assert not [name for name, value in secrets(tmp_path).items() if value and value in settings]


def test_a_second_time_it_keeps_everything(tmp_path: Path) -> None:
    init(tmp_path, "--site", SITE, *CLIENT)
    before, settings = secrets(tmp_path), (tmp_path / ".env").read_text()

    said = report(tmp_path, "--site", "https://another.example", "--syncaroo-client-id", "platform-2")

    assert secrets(tmp_path) == before
    assert (tmp_path / ".env").read_text() == settings
    assert said["written"] == said["completed"] == []


def test_what_is_missing_is_added_and_fits(tmp_path: Path) -> None:
    init(tmp_path, "--site", SITE, *CLIENT)
    (tmp_path / "secrets" / "amqp_url_fetch").unlink()
    before = secrets(tmp_path)
    lines = (tmp_path / ".env").read_text().splitlines()
    (tmp_path / ".env").write_text("\n".join(line for line in lines if "PROXY" not in line) + "\nLOG_LEVEL=debug")

    said = report(tmp_path)

    assert set(said["written"]) == {"secrets/amqp_url_fetch", f"secrets/{DEFINITIONS}"}
    assert said["completed"] == ["PROXY_HTTP_PORT", "PROXY_HTTPS_PORT"]
    files = secrets(tmp_path)
    hashes = {one["name"]: one["password_hash"] for one in loads(files[DEFINITIONS].encode())["users"]}
    old = {one["name"]: one["password_hash"] for one in loads(before[DEFINITIONS].encode())["users"]}
    assert is_hash_of(hashes["fetch"], urlsplit(files["amqp_url_fetch"]).password or "")
    assert {name: found for name, found in hashes.items() if name != "fetch"} == {
        name: found for name, found in old.items() if name != "fetch"
    }
    assert dotenv_values(tmp_path / ".env")["LOG_LEVEL"] == "debug"


def test_after_a_disk_that_was_full_it_goes_on(tmp_path: Path) -> None:
    init(tmp_path)
    for name in ("secrets/secret_keys", ".env"):
        (tmp_path / name).unlink()
    left = tmp_path / "secrets" / ".secret_keys.new"
    left.write_text("half of a k")
    left.chmod(0o600)
    stranger = tmp_path / "secrets" / ".admin_token.swp"
    stranger.write_bytes(b"\xff an editor's, which is no text")
    stranger.chmod(0o600)
    init(tmp_path)
    assert not left.exists()
    assert stat.S_IMODE(stranger.stat().st_mode) == 0o600
    Fernet((tmp_path / "secrets" / "secret_keys").read_text())
    assert (tmp_path / ".env").exists()


def test_what_a_person_had_not_is_filled_in_later(tmp_path: Path) -> None:
    init(tmp_path, "--site", SITE)
    (tmp_path / "given").write_text("secret-of-syncaroo\n")

    said = report(tmp_path, *CLIENT, "--syncaroo-client-secret-file", str(tmp_path / "given"))

    assert said["completed"] == ["SYNCAROO_CLIENT_ID"]
    assert said["written"] == ["secrets/syncaroo_client_secret"]
    assert said["missing"] == []
    assert (tmp_path / ".env").read_text().count("SYNCAROO_CLIENT_ID=") == 1
    assert secrets(tmp_path)["syncaroo_client_secret"] == "secret-of-syncaroo"


def test_a_rotated_password_reaches_the_broker(tmp_path: Path) -> None:
    init(tmp_path, "--site", SITE)
    (tmp_path / "secrets" / "amqp_url_relay").write_text("amqp://relay:another@rabbitmq:5672/gateway\n")

    assert report(tmp_path)["written"] == [f"secrets/{DEFINITIONS}"]

    made = loads(secrets(tmp_path)[DEFINITIONS].encode())["users"]
    assert is_hash_of(next(one["password_hash"] for one in made if one["name"] == "relay"), "another")


def test_force_puts_aside_what_was_there(tmp_path: Path) -> None:
    init(tmp_path, "--site", SITE)
    before = secrets(tmp_path)

    init(tmp_path, "--site", SITE, "--force")

    assert not {value for value in before.values() if value} & {value for value in secrets(tmp_path).values() if value}
    (aside,) = tmp_path.glob("secrets.before-*")
    assert {path.name: path.read_text() for path in aside.iterdir()} == before
    assert len(list(tmp_path.glob(".env.before-*"))) == 1


def test_the_sandbox_needs_nothing_more(tmp_path: Path) -> None:
    assert report(tmp_path, "--sandbox")["missing"] == []
    settings = dotenv_values(tmp_path / ".env")
    assert settings["SITE_URI"] == "http://gateway.localhost"
    assert settings["SYNCAROO_API_HOSTS"] == "syncaroo.localhost:8090"
    assert f"http://{settings['SYNCAROO_API_HOSTS']}" == settings["SYNCAROO_BASE_URL"]


def test_a_port_of_its_own_is_the_proxys(tmp_path: Path) -> None:
    init(tmp_path, "--site", "https://localhost:8443")
    settings = dotenv_values(tmp_path / ".env")
    assert (settings["PROXY_HTTP_PORT"], settings["PROXY_HTTPS_PORT"]) == ("80", "8443")


def test_the_next_steps_name_what_is_open(tmp_path: Path) -> None:
    said = init(tmp_path, "--site", SITE).output
    assert "1. Fill in SYNCAROO_CLIENT_ID in .env and secrets/syncaroo_client_secret" in said
    assert "2. Let others in: PUBLISH_ADDRESS=0.0.0.0 in .env" in said
    assert "3. docker compose up -d --build --wait" in said


@pytest.mark.parametrize(
    ("site", "why"),
    [
        ("yourapp.example", "is not an http(s) URL"),
        ("http://yourapp.example", "must be https"),
        ("https://yourapp.example/gateway", "scheme and host alone"),
        ("https://user:password@yourapp.example", "is not an http(s) URL"),
    ],
    ids=["no scheme", "not encrypted", "a path", "a password"],
)
def test_a_site_that_cannot_be_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], site: str, why: str
) -> None:
    code, said = refusal(monkeypatch, capsys, "--directory", str(tmp_path), "--site", site)
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert why in said


@pytest.mark.parametrize("value", ["changeme", "", "todo"], ids=["changeme", "empty", "todo"])
def test_a_placeholder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    (tmp_path / "given").write_text(value)
    where = tmp_path / "made"
    code, said = refusal(
        monkeypatch, capsys, "--directory", str(where), "--syncaroo-client-secret-file", str(tmp_path / "given")
    )
    assert (code, where.exists()) == (2, False)
    assert "is empty or a placeholder" in said


def test_secrets_in_env_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There they would beat the files, in every container."""
    (tmp_path / ".env").write_text(
        "ADMIN_TOKEN=geheim\nAMQP_URL=amqp://user:geheim@host/\nSITE_URI=https://a.example\n"
    )
    code, said = refusal(monkeypatch, capsys, "--directory", str(tmp_path))
    assert code == 1
    assert ".env: ADMIN_TOKEN, AMQP_URL: secrets are files here" in said
    assert "geheim" not in said
    assert not (tmp_path / "secrets").exists()


def test_an_address_without_a_password_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    init(tmp_path, "--site", SITE)
    (tmp_path / "secrets" / "amqp_url_token").write_text("amqp://rabbitmq/gateway")
    code, said = refusal(monkeypatch, capsys, "--directory", str(tmp_path))
    assert code == 1
    assert said.startswith("secrets/amqp_url_token: is not an AMQP address with a password")
