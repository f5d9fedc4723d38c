"""T-CONFIG. common.settings: one line per fault, the variable's name and never its value (CONTRACT §1, §2)."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from common import settings as all_settings
from common.errors import SettingsError
from common.settings import (
    AdminSettings,
    BrokerSettings,
    EgressSettings,
    EventBrokerSettings,
    FetchSettings,
    InventorySettings,
    KeySettings,
    ListenSettings,
    OidcSettings,
    PlatformSettings,
    RetrySettings,
    Section,
    SiteSettings,
    StoreSettings,
    WebhookSettings,
    load,
    parse_duration,
    secret_values,
)
from tests import keys

KEY = keys.NEW


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of this machine, and a directory without `.env`."""
    names = {name.upper() for section in _sections() for name in section.model_fields}
    for name in os.environ:
        if name in names or name.removesuffix("_FILE") in names:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def _sections() -> list[type[Section]]:
    return [one for one in vars(all_settings).values() if isinstance(one, type) and issubclass(one, Section)]


def faults(*sections: type[Any]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(*sections)
    return caught.value.faults


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        (BrokerSettings, "AMQP_URL", "http://s3cret:s3cret@h"),
        (BrokerSettings, "AMQP_URL", "amqp://u:s3cret/x@h/v"),
        (BrokerSettings, "AMQP_URL", "amqp://u:s3cret@h:port"),
        (BrokerSettings, "AMQP_URL", "amqp://[s3cret"),
        (StoreSettings, "DATABASE_URL", "mysql://s3cret@h/d"),
        (StoreSettings, "DATABASE_URL", "postgresql+asyncpg://u:s3cret/x@h/d"),
        (KeySettings, "SECRET_KEYS", "s3cret"),
        (KeySettings, "SECRET_KEYS", f"{KEY},s3cret"),
        (KeySettings, "SECRET_KEYS", " , "),
        (AdminSettings, "ADMIN_TOKEN", "changeme"),
        (AdminSettings, "ADMIN_TOKEN", "ops:s3cret,TODO"),
        (SiteSettings, "SITE_URI", "ftp://s3cret"),
        (SiteSettings, "SITE_URI", "https://u:s3cret@h"),
        (SiteSettings, "SITE_URI", "https://h:s3cret"),
        (InventorySettings, "INVENTORY_URL", "https://s3cret.example/inventory"),
        (InventorySettings, "INVENTORY_URL", "https://{userId}.s3cret.example/inventory"),
        (InventorySettings, "INVENTORY_URL", "https://h/s3cret/{userid}"),
        (InventorySettings, "INVENTORY_URL", "https://h/s3cret#{userId}"),
        (InventorySettings, "INVENTORY_URL", "https://u:s3cret@h/{userId}"),
        (InventorySettings, "INVENTORY_URL", "ftp://s3cret/{userId}"),
        (InventorySettings, "INVENTORY_URL", "http://s3cret.example/{userId}"),
        (InventorySettings, "INVENTORY_TOKEN", "changeme"),
        (InventorySettings, "INVENTORY_TOKEN", "s3cret-without-a-url"),
        (OidcSettings, "OIDC_ISSUER", "login.s3cret.example"),
        (OidcSettings, "OIDC_ISSUER", "http://login.s3cret.example"),
        (OidcSettings, "OIDC_ISSUER", "https://login.example?s3cret"),
        (OidcSettings, "OIDC_ISSUER", "https://u:s3cret@login.example"),
        (OidcSettings, "OIDC_CLIENT_SECRET", "changeme"),
        (ListenSettings, "TRUSTED_PROXIES", "10.0.0.0/8,s3cret"),
        (ListenSettings, "TRUSTED_PROXIES", "10.0.0.0/33"),
        (WebhookSettings, "WEBHOOK_SUCCESS_STATUS", "500"),
        (WebhookSettings, "WEBHOOK_SUCCESS_STATUS", "s3cret"),
        (WebhookSettings, "WEBHOOK_HASH_RECIPE", "s3cret:sorted:hex"),
        (WebhookSettings, "WEBHOOK_HASH_MODE", "s3cret"),
        (WebhookSettings, "WEBHOOK_HASH_KEY", "changeme"),
        (RetrySettings, "RETRY_DELAYS", "2s,s3cret"),
        (RetrySettings, "RETRY_DELAYS", "0"),
        (RetrySettings, "RETRY_DELAYS", "2s,0s"),
        (RetrySettings, "RETRY_FOR", "s3cret"),
        (EgressSettings, "EGRESS_PROXY", "s3cret:3128"),
        (EgressSettings, "EGRESS_PROXY", "socks5://me:s3cret@proxy:1080"),
        (EgressSettings, "EGRESS_PROXY", "http://me:s3cret@proxy:port"),
        (EgressSettings, "EGRESS_PROXY", "http://me:s3/cret@proxy:3128"),
        (EgressSettings, "EGRESS_PROXY", "http://proxy:3128/s3cret"),
        (EgressSettings, "EGRESS_PROXY", "http://proxy:3128?s3cret"),
        (EgressSettings, "EGRESS_PROXY", "http://:s3cret@"),
        (FetchSettings, "API_RATE_PER_SECOND", "0"),
        (FetchSettings, "API_RATE_PER_SECOND", "nan"),
        (FetchSettings, "API_RATE_PER_SECOND", "inf"),
        (FetchSettings, "FETCH_CONCURRENCY", "0"),
        (FetchSettings, "FETCH_CONCURRENCY", "1.5"),
        (FetchSettings, "TARGET_INTERVAL", "-1s"),
    ],
)
def test_a_fault_is_one_line_with_the_name_and_never_the_value(
    section: type[Any], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    (line,) = faults(section)
    assert line.startswith(f"{name}: ")
    assert "\n" not in line
    assert "s3cret" not in line


def test_every_fault_of_every_section_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SUCCESS_STATUS", "99")
    monkeypatch.setenv("WEBHOOK_HASH_RECIPE", "x")
    monkeypatch.setenv("WEBHOOK_HASH_MODE", "x")
    monkeypatch.setenv("SECRET_KEYS_FILE", "/nowhere")
    found = faults(BrokerSettings, WebhookSettings, KeySettings, BrokerSettings)
    assert [line.partition(":")[0] for line in found] == [
        "AMQP_URL", "SECRET_KEYS_FILE", "WEBHOOK_HASH_MODE", "WEBHOOK_HASH_RECIPE", "WEBHOOK_SUCCESS_STATUS"
    ]  # fmt: skip
    assert found[0] == "AMQP_URL: is required and not set"


@pytest.mark.parametrize("host", ["https://yourapp.com", "http://127.0.0.1:9", "http://[::1]", "http://localhost:80"])
def test_the_platform_is_asked_by_https_or_on_this_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVENTORY_URL", f"{host}/{{userId}}")
    monkeypatch.setenv("INVENTORY_TOKEN", "s3cret")
    assert load(InventorySettings)[0].inventory_url == f"{host}/{{userId}}"


def test_where_http_is_permitted_the_platform_may_be_asked_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVENTORY_URL", "http://platform.internal/{userId}")
    (fault,) = faults(InventorySettings)
    assert fault.startswith("INVENTORY_URL: is not https")
    monkeypatch.setenv("SYNCAROO_ALLOW_HTTP", "true")
    load(InventorySettings)


def test_the_identity_provider_is_set_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {"OIDC_ISSUER": "https://login.example/", "OIDC_CLIENT_ID": "us", "OIDC_CLIENT_SECRET": "s3cret"}
    assert load(OidcSettings)[0].oidc_issuer is None
    for name, value in whole.items():
        monkeypatch.setenv(name, value)
    assert load(OidcSettings)[0].oidc_issuer == "https://login.example/", "as the provider names itself"
    for missing in whole:
        with monkeypatch.context() as but_one:
            but_one.delenv(missing)
            (line,) = faults(OidcSettings)
            assert line.startswith(f"{missing}: ")
            assert "s3cret" not in line
    for here in ("http://127.0.0.1:4000", "http://[::1]", "http://localhost"):
        monkeypatch.setenv("OIDC_ISSUER", here)
        assert load(OidcSettings)[0].oidc_issuer == here


def test_a_file_holds_the_value_and_the_environment_beats_dotenv(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "url").write_text("amqp://file\n")
    (tmp_path / ".env").write_text("AMQP_URL=amqp://dotenv\nSITE_URI=https://dotenv\nAPI_PATH=/x\n")
    assert load(BrokerSettings)[0].amqp_url.get_secret_value() == "amqp://dotenv"
    monkeypatch.setenv("AMQP_URL_FILE", str(tmp_path / "url"))
    assert load(BrokerSettings)[0].amqp_url.get_secret_value() == "amqp://file"
    monkeypatch.setenv("AMQP_URL", "amqp://environment")
    assert load(BrokerSettings)[0].amqp_url.get_secret_value() == "amqp://environment"
    monkeypatch.setenv("API_PATH", "")
    site = load(SiteSettings)[0]
    assert (site.site_uri, site.api_path) == ("https://dotenv", "/x"), "an empty value counts as not set"


def test_a_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "binary"):
        monkeypatch.setenv("AMQP_URL_FILE", str(path))
        assert faults(BrokerSettings) == ("AMQP_URL_FILE: the file cannot be read",)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("2s", 2), ("1.5m", 90), ("6h", 21600), ("7d", 604800), ("0", 0), ("0s", 0), (" 2s ", 2)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "2", "s", "-1s", "2 s", "1e3s", "2sec", "1h30m", "٢s", "inf", "nan", "2S", "9" * 20 + "d"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(("path", "prefix"), [("/api/", "/api"), ("api", "/api"), ("/", ""), ("/a/b", "/a/b")])
def test_the_prefix(path: str, prefix: str) -> None:
    assert SiteSettings(api_path=path).prefix == prefix


def test_lists_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", "ann:t0ken-one, t0ken-two,")
    monkeypatch.setenv("SYNC_ATTRIBUTES", "locations, rates")
    admin, webhook = load(AdminSettings, WebhookSettings)
    assert admin.tokens() == ["t0ken-one", "t0ken-two"]
    assert webhook.sync_attributes == ("locations", "rates")


def test_secrets_do_not_show_and_are_known_to_the_redaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole and in part: what a library prints of a URL is its password, of `name:token` the token."""
    monkeypatch.setenv("AMQP_URL", "amqp://u:p%40ssword@h/v")
    monkeypatch.setenv("ADMIN_TOKEN", "ann:t0ken-one")
    monkeypatch.setenv("SECRET_KEYS", KEY)
    monkeypatch.setenv("PLATFORM_CLIENT_ID", "xyz1243")
    monkeypatch.setenv("PLATFORM_CLIENT_SECRET", "one-s3cret,two-s3cret")
    sections = load(BrokerSettings, AdminSettings, KeySettings, PlatformSettings)
    shown = repr(sections) + str(sections)
    secrets = ["p%40ssword", "p@ssword", "t0ken-one", KEY, "one-s3cret", "two-s3cret"]
    assert not [secret for secret in secrets if secret in shown]
    assert set(secrets) <= set(secret_values(sections))


@pytest.mark.parametrize("value", ["http://proxy:3128", "https://me:s3cret%2F@proxy", "http://10.0.0.1:3128/"])
def test_an_egress_proxy_is_an_address_and_never_shown(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(EgressSettings)[0].egress_proxy is None
    monkeypatch.setenv("EGRESS_PROXY", value)
    (section,) = load(EgressSettings)
    assert section.egress_proxy.get_secret_value() == value
    assert value not in repr(section) + str(section)
    assert value in secret_values([section])


def test_events_are_on_the_broker_of_all_unless_they_have_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQP_URL", "amqp://work")
    broker, events = load(BrokerSettings, EventBrokerSettings)
    assert events.url(broker) == events.url() == "amqp://work"
    monkeypatch.setenv("EVENTS_AMQP_URL", "amqp://events")
    (events,) = load(EventBrokerSettings)
    assert events.url(broker) == "amqp://events"
    monkeypatch.delenv("AMQP_URL")
    assert events.url() == "amqp://events", "then nothing else is asked for"


def test_a_socket_directory_is_a_database_too(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql+asyncpg:///gateway?host=/var/run/postgresql"
    monkeypatch.setenv("DATABASE_URL", url)
    (store,) = load(StoreSettings)
    assert store.database_url.get_secret_value() == url
