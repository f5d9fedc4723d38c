"""Settings from the environment and `.env`: one small class per concern, read once in `__main__`, passed in pieces.

Every name can also be given as `NAME_FILE`, the path of a file that holds the value. The environment beats `.env`.
Faults name the variable and never show its value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from cryptography.fernet import Fernet
from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from common.errors import SettingsError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
USER_ID = "{userId}"
_PLACEHOLDERS = {"changeme", "change-me", "change_me", "placeholder", "todo", "xxx", "..."}


def parse_duration(text: object) -> timedelta:
    """`500ms`, `2s`, `1m`, `6h`, `7d`, `0`: a number with its unit.

    Raises:
        ValueError: anything else.
    """
    if isinstance(text, timedelta):
        return text
    if match := re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)", str(text).strip()):
        return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
    if str(text).strip() == "0":
        return timedelta(0)
    raise ValueError("is not a duration; write a number with ms, s, m, h or d, such as 10s")


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _not_empty(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("is empty")
    return value


def _real_secret(value: SecretStr) -> SecretStr:
    clear = value.get_secret_value().strip()
    if not clear or clear.lower() in _PLACEHOLDERS:
        raise ValueError("is empty or a placeholder; set a real secret")
    return value


def _parts(url: str) -> SplitResult | None:
    """The URL's parts, when it has a host and its port is one: what the libraries raise tells parts of passwords."""
    try:
        parts = urlsplit(url)
        return parts if parts.hostname and (parts.port is None or parts.port > 0) else None
    except ValueError:
        return None


def _http_url(value: str) -> str:
    parts = _parts(value)
    if parts is None or parts.scheme not in ("http", "https") or parts.username or parts.query:
        raise ValueError("is not an http(s) URL")
    return value.rstrip("/")


def _inventory_url(value: str) -> str:
    parts = _parts(value)
    if parts is None or parts.scheme not in ("http", "https") or parts.username or parts.fragment:
        raise ValueError("is not an http(s) URL")
    if USER_ID not in f"{parts.path}?{parts.query}" or USER_ID in parts.netloc:
        raise ValueError(f"has no {USER_ID} in its path or query, such as https://yourapp.com/inventory/{USER_ID}")
    return value


def _issuer(value: str) -> str:
    """Kept as it is, to the last slash: the provider names itself so, and is held to it."""
    _http_url(value)
    parts = urlsplit(value)
    if parts.query or parts.fragment or _is_plain(value):
        raise ValueError("is not an https URL without query (http is for providers on this machine only)")
    return value


def _is_plain(url: str) -> bool:
    """http, to another machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_this_machine(parts.hostname or "")


def is_this_machine(host: str) -> bool:
    """Whether nobody else can mean this machine by it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _amqp_url(value: SecretStr) -> SecretStr:
    parts = _parts(value.get_secret_value())
    if parts is None or parts.scheme not in ("amqp", "amqps"):
        raise ValueError("is not an amqp:// or amqps:// URL (are /, # and @ in its password escaped?)")
    return value


def _proxy_url(value: SecretStr) -> SecretStr:
    parts = _parts(value.get_secret_value())
    plain = parts is not None and parts.path in ("", "/") and not (parts.query or parts.fragment)
    if parts is None or parts.scheme not in ("http", "https") or not plain:
        raise ValueError("is not http(s)://[user:password@]host[:port] (are /, # and @ in its password escaped?)")
    return value


def _database_url(value: SecretStr) -> SecretStr:
    clear = value.get_secret_value()
    if not clear.startswith(("sqlite+aiosqlite:///", "postgresql+asyncpg://")):
        raise ValueError("must begin with sqlite+aiosqlite:/// or postgresql+asyncpg://")
    server, _, _ = clear.partition("://")[2].partition("/")  # none with a socket's directory in the query
    if clear.startswith("postgresql") and server and _parts(clear) is None:
        raise ValueError("is not a postgresql+asyncpg:// URL (are /, # and @ in its password escaped?)")
    return value


def _fernet_key(value: SecretStr) -> SecretStr:
    try:
        Fernet(value.get_secret_value())
    except ValueError:
        raise ValueError("holds something that is not a Fernet key (32 bytes, URL-safe base64)") from None
    return value


def _positive(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be longer than 0")
    return value


def _pairs(text: str) -> dict[str, str]:
    """`name=value,name=value`, percent-encoded, as OpenTelemetry writes lists.

    Raises:
        ValueError: it is none.
    """
    parts = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    if not all(name.strip() and equals for name, equals, _ in parts):
        raise ValueError("is not name=value,name=value (percent-encode what has a comma or a space in it)")
    return {unquote(name.strip()): unquote(value.strip()) for name, _, value in parts}


def _pairs_text(value: str) -> str:
    _pairs(value)
    return value


def _secret_pairs(value: SecretStr) -> SecretStr:
    _pairs(value.get_secret_value())
    return value


def _hash_recipe(value: str) -> str:
    if not re.fullmatch(r"(hmac-)?(sha256|sha1|md5):(sorted|compact|php|cut):(hex|base64)", value):
        raise ValueError("is not ALGO:SERIALISATION:ENCODING, such as hmac-sha256:sorted:hex")
    return value


Secret = Annotated[SecretStr, AfterValidator(_real_secret)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Issuer = Annotated[str, AfterValidator(_issuer)]
AmqpUrl = Annotated[SecretStr, AfterValidator(_amqp_url)]
InventoryUrl = Annotated[str, AfterValidator(_inventory_url)]
ProxyUrl = Annotated[SecretStr, AfterValidator(_proxy_url)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Secrets = Annotated[tuple[Secret, ...], NoDecode, BeforeValidator(_split), AfterValidator(_not_empty)]
FernetKeys = Annotated[
    tuple[Annotated[SecretStr, AfterValidator(_fernet_key)], ...],
    NoDecode,
    BeforeValidator(_split),
    AfterValidator(_not_empty),
]
Delays = Annotated[
    tuple[Annotated[Duration, AfterValidator(_positive)], ...],
    NoDecode,
    BeforeValidator(_split),
    AfterValidator(_not_empty),
]
Networks = Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_split)]
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=1)]
Limit = Annotated[int, Field(ge=0)]
"""0: none."""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Environment(PydanticBaseSettingsSource):
    """`NAME`, then `NAME_FILE`, of the environment and then of `.env`; an empty value, or file, counts as not set."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        name = field_name.upper()
        for values in (dict(os.environ), dotenv_values(".env")):
            if values.get(name):
                return values[name], name, False
            if (path := values.get(f"{name}_FILE")) and (text := _read_secret_file(name, path)):
                return text, name, False
        return None, name, False

    def __call__(self) -> dict[str, Any]:
        found = {}
        for field_name, field in self.settings_cls.model_fields.items():
            value, _, _ = self.get_field_value(field, field_name)
            if value is not None:
                found[field_name] = value
        return found


def _read_secret_file(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise SettingsError([f"{name}_FILE: the file cannot be read"]) from None


class Section(BaseSettings):
    """Base of the small classes."""

    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True, extra="ignore")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments (in tests), then the environment."""
        return init_settings, _Environment(settings_cls)


class LogSettings(Section):
    """How this process logs."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"


class TraceSettings(Section):
    """Where traces go, under OpenTelemetry's own names; without an endpoint nothing is traced."""

    otel_exporter_otlp_endpoint: HttpUrl | None = None
    otel_exporter_otlp_headers: Annotated[SecretStr, AfterValidator(_secret_pairs)] | None = None
    otel_service_name: str | None = None
    otel_resource_attributes: Annotated[str, AfterValidator(_pairs_text)] = ""
    otel_traces_sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = "parentbased_always_on"
    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0

    def headers(self) -> dict[str, str]:
        """What every request to the collector carries; the values are secrets."""
        found = self.otel_exporter_otlp_headers
        return {} if found is None else _pairs(found.get_secret_value())

    def resource(self) -> dict[str, str]:
        """What all spans say of where they come from."""
        return _pairs(self.otel_resource_attributes)

    def secrets(self) -> list[str]:
        """For the redaction of logs: headers whole and in parts, such as the token behind `Bearer `."""
        values = list(self.headers().values())
        return [*secret_values([self]), *values, *(value.rpartition(" ")[2] for value in values)]


class ProcessSettings(Section):
    """How this process ends."""

    shutdown_grace_seconds: Seconds = 20.0


class BrokerSettings(Section):
    """The broker between our processes."""

    amqp_url: AmqpUrl


class EventBrokerSettings(Section):
    """The broker for `syncaroo.events`, where it is another one."""

    events_amqp_url: AmqpUrl | None = None

    def url(self, broker: BrokerSettings | None = None) -> str:
        """Where events are: there, else on the broker between our processes, which is read when it is not given.

        Raises:
            SettingsError: there is neither.
        """
        found = self.events_amqp_url or (broker or load(BrokerSettings)[0]).amqp_url
        return str(found.get_secret_value())


class ManagementSettings(Section):
    """How `setup` sets the broker's policies: what the event log keeps, and what a subscriber's queue may hold."""

    amqp_management_url: SecretStr | None = None
    event_log_age: Duration = timedelta(days=7)
    event_log_max_bytes: Limit = 10 * 10**9
    subscriber_max_messages: Limit = 1_000_000
    subscriber_max_bytes: Limit = 10**9


class StoreSettings(Section):
    """The database."""

    database_url: DatabaseUrl = SecretStr("sqlite+aiosqlite:///./gateway.db")


class KeySettings(Section):
    """Keys that encrypt at rest and sign what we issue, newest first."""

    secret_keys: FernetKeys

    def clear(self) -> list[str]:
        """The keys as text."""
        return [key.get_secret_value() for key in self.secret_keys]


class SiteSettings(Section):
    """Where we are reached."""

    site_uri: HttpUrl = "http://localhost:8080"
    api_path: str = "/api/"
    event_source: str | None = None

    @property
    def prefix(self) -> str:
        """`API_PATH` as `/api`, or empty for the root."""
        inner = self.api_path.strip("/")
        return f"/{inner}" if inner else ""

    @property
    def source(self) -> str:
        """CloudEvents `source`."""
        return self.event_source or self.site_uri


class ListenSettings(Section):
    """Where the ingress listens; with `OPS_PORT` admin, console and metrics are served there only."""

    http_host: str = "0.0.0.0"  # noqa: S104  # containers publish it; a proxy stands in front
    http_port: Port = 8080
    ops_port: Port | None = None
    trusted_proxies: Networks = ()
    """Whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed."""
    drain_seconds: Seconds = 1.0
    """How long it goes on serving after SIGTERM while `/readyz` already says no."""


class WorkerSettings(Section):
    """Where a worker process tells of itself: health and metrics; without a port, nowhere."""

    http_host: str = "0.0.0.0"  # noqa: S104  # containers publish it
    worker_port: Port | None = None


class PlatformSettings(Section):
    """Syncaroo as a client of ours: the guide's `yourClientId`, `yourClientSecret`."""

    platform_client_id: str
    platform_client_secret: Secrets
    platform_redirect_uris: Words = ("https://app.syncaroo.com/connection",)
    access_token_seconds: Count = 3600
    refresh_token_days: Count = 90
    code_seconds: Count = 300

    def secrets(self) -> list[str]:
        """Every secret that is valid now."""
        return [secret.get_secret_value() for secret in self.platform_client_secret]


class InventorySettings(Section):
    """Where the platform itself is asked for a user's listings; without a URL what operators told is all there is."""

    inventory_url: InventoryUrl | None = None
    inventory_token: Secret | None = None
    syncaroo_allow_http: bool = False

    @model_validator(mode="after")
    def _listings_and_token_go_encrypted(self) -> Self:
        if self.inventory_url is None and self.inventory_token is not None:
            raise ValueError("INVENTORY_TOKEN: is set without INVENTORY_URL, where it would be sent")
        if self.inventory_url is not None and not self.syncaroo_allow_http and _is_plain(self.inventory_url):
            raise ValueError(
                "INVENTORY_URL: is not https (http is for this machine only, or with SYNCAROO_ALLOW_HTTP=true)"
            )
        return self


class OidcSettings(Section):
    """The platform's own identity provider, where users log in instead of with local accounts."""

    oidc_issuer: Issuer | None = None
    oidc_client_id: str | None = None
    oidc_client_secret: Secret | None = None

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        names = [name.upper() for name in type(self).model_fields if getattr(self, name) is None]
        if 0 < len(names) < len(type(self).model_fields):
            raise ValueError(f"{', '.join(names)}: OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET go together")
        return self


class WebhookSettings(Section):
    """How webhooks are judged."""

    webhook_success_status: Annotated[int, Field(ge=200, le=299)] = 200
    webhook_hash_mode: Literal["off", "observe", "enforce"] = "observe"
    webhook_hash_recipe: Annotated[str, AfterValidator(_hash_recipe)] = "hmac-sha256:sorted:hex"
    webhook_hash_key: Secret | None = None
    sync_attributes: Words = ("locations", "resources", "rates")


class SyncarooSettings(Section):
    """Syncaroo's addresses, and where its tokens may go."""

    syncaroo_base_url: HttpUrl = "https://app.syncaroo.com"
    syncaroo_api_hosts: Words = ("api.syncaroo.com",)
    syncaroo_allow_http: bool = False


class ClientSettings(Section):
    """We as a client of Syncaroo."""

    syncaroo_client_id: str
    syncaroo_client_secret: Secret


class AdminSettings(Section):
    """Who may operate: `token`, or `name:token,name:token`."""

    admin_token: Secrets

    def tokens(self) -> list[str]:
        """The bare tokens."""
        return [secret.get_secret_value().rsplit(":", 1)[-1] for secret in self.admin_token]


class RetrySettings(Section):
    """The one retry policy: these delays, the last one repeated, for so long."""

    retry_delays: Delays = tuple(map(parse_duration, ("2s", "10s", "1m", "5m", "30m")))
    retry_for: Duration = timedelta(hours=72)


class FetchSettings(Section):
    """How hard we ask Syncaroo; claims pause while more pages than `reconcile_backlog` wait to be reconciled."""

    api_rate_per_second: Rate = 20.0
    fetch_concurrency: Count = 16
    target_interval: Duration = timedelta(seconds=1)
    reconcile_backlog: Count = 1000


class EgressSettings(Section):
    """The way out to Syncaroo; proxies that the environment names are never used."""

    egress_proxy: ProxyUrl | None = None


class ReconcileSettings(Section):
    """What counts as a change, and how many listings may vanish before a person is asked."""

    recheck_after: Duration = timedelta(seconds=60)
    ignored_fields: Words = ()
    delete_brake: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.3


class ResyncSettings(Section):
    """When everything known is read again."""

    resync_interval: Duration = timedelta(hours=6)
    burst_quiet: Duration = timedelta(seconds=60)
    silence_after: Duration = timedelta(hours=1)


class HistorySettings(Section):
    """How long a listing's story is kept."""

    listing_history_days: Count = 90


S = TypeVar("S", bound=BaseModel)


class Loader:
    """Reads sections one after another and collects the faults of all, so that a person mends them in one go."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def read(self, section: type[S]) -> S | None:
        """The section, or None when it has faults."""
        try:
            return section()
        except SettingsError as error:
            self.faults += error.faults
        except ValidationError as error:
            self.faults += [_fault_line(one) for one in error.errors(include_input=False, include_url=False)]
        return None


def load(*sections: type[Any]) -> tuple[Any, ...]:
    """All sections, in order.

    Raises:
        SettingsError: with every fault of every section.
    """
    loader = Loader()
    values = tuple(loader.read(section) for section in sections)
    if loader.faults:
        raise SettingsError(sorted(set(loader.faults)))
    return values


def _fault_line(error: Any) -> str:
    name = str(error["loc"][0]).upper() if error["loc"] else ""
    if error["type"] == "missing":
        return f"{name}: is required and not set"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{name}: {message}" if name else message


def secret_values(sections: Sequence[Any]) -> list[str]:
    """Every secret held by these sections, whole and the part that is secret, for the redaction of logs."""
    found = []
    for section in sections:
        for value in vars(section).values():
            parts = value if isinstance(value, tuple) else (value,)
            for part in parts:
                if isinstance(part, SecretStr):
                    found += _spellings(part.get_secret_value())
    return found


def _spellings(secret: str) -> list[str]:
    """`name:token` and URLs are also told in parts."""
    if "://" not in secret:
        return [secret, secret.rpartition(":")[2]]
    password = urlsplit(secret).password or secret
    return [secret, password, unquote(password)]
