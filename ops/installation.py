"""What an installation with Compose is made of: the lines of `.env`, and one file per secret. Pure.

Everything that is there is kept; what can be made from something else is made again from that: the broker's
definitions from the addresses that hold its users' passwords.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from cryptography.fernet import Fernet

from common.errors import GatewayError
from ops.broker_users import VHOST, definitions, users

DEFINITIONS = "rabbitmq-definitions.json"
OPERATOR_PASSWORD = "rabbitmq_operator_password"  # noqa: S105  # a file's name
SYNCAROO_SECRET = "syncaroo_client_secret"  # noqa: S105  # a file's name
OPTIONAL = ("oidc_client_secret", "inventory_token", "webhook_hash_key", "egress_proxy")
"""Empty until somebody needs them: Compose mounts what it names, so there is a file for each."""
SANDBOX_PORT = 8090
_PORTS = {"http": 80, "https": 443}


class Unusable(GatewayError):
    """What is there does not fit; the text says what to do."""


@dataclass(frozen=True)
class Wanted:
    """What a person has said; `client_secret` is empty when it is not known yet."""

    site: str
    sandbox: bool = False
    client_id: str = ""
    client_secret: str = ""


def env_values(wanted: Wanted) -> dict[str, str]:
    """The settings that are no secrets, as `.env` has them."""
    address = urlsplit(wanted.site)
    port = address.port or _PORTS[address.scheme]
    ports = _PORTS | {address.scheme: port}
    values = {
        "SITE_URI": wanted.site,
        "PROXY_HTTP_PORT": str(ports["http"]),
        "PROXY_HTTPS_PORT": str(ports["https"]),
        "PLATFORM_CLIENT_ID": "syncaroo-" + secrets.token_hex(4),
        "SYNCAROO_CLIENT_ID": wanted.client_id,
    }
    if not wanted.sandbox:
        return values
    stand_in = f"syncaroo.localhost:{SANDBOX_PORT}"
    return values | {
        "SYNCAROO_CLIENT_ID": wanted.client_id or "platform-" + secrets.token_hex(4),
        "PLATFORM_REDIRECT_URIS": f"http://{stand_in}/connection",
        "SYNCAROO_BASE_URL": f"http://{stand_in}",
        "SYNCAROO_API_HOSTS": stand_in,
        "SYNCAROO_ALLOW_HTTP": "true",
        "SANDBOX_PORT": str(SANDBOX_PORT),
    }


def secret_files(wanted: Wanted, found: Mapping[str, str]) -> dict[str, str]:
    """Every file under `secrets/` by name, those in `found` as they are.

    Raises:
        Unusable: one of `found` cannot be read as what it is.
    """
    files = {**_fresh(wanted), **dict.fromkeys(OPTIONAL, ""), **found}
    if not files[SYNCAROO_SECRET]:  # an earlier run may not have known it
        files[SYNCAROO_SECRET] = wanted.client_secret
    if "database_url" not in found:
        files["database_url"] = f"postgresql+asyncpg://gateway:{files['postgres_password']}@postgres:5432/gateway"
    if "amqp_management_url" not in found:
        files["amqp_management_url"] = f"http://setup:{_password(files, 'setup')}@rabbitmq:15672"
    passwords = {user.name: _password(files, user.name) for user in users()}
    made = definitions(passwords, _hashes(found.get(DEFINITIONS, "{}")))
    files[DEFINITIONS] = msgspec.json.format(msgspec.json.encode(made), indent=2).decode()
    return files


def _fresh(wanted: Wanted) -> dict[str, str]:
    roles = [user.name for user in users() if user.name != "operator"]
    return {
        "secret_keys": Fernet.generate_key().decode(),
        "admin_token": _secret(),
        "platform_client_secret": _secret(),
        SYNCAROO_SECRET: wanted.client_secret or (_secret() if wanted.sandbox else ""),
        "postgres_password": _secret(),
        OPERATOR_PASSWORD: _secret(),
        "grafana_password": _secret(),
        **{f"amqp_url_{role}": f"amqp://{role}:{_secret()}@rabbitmq:5672/{VHOST}" for role in roles},
    }


def _secret() -> str:
    return secrets.token_hex(24)  # of letters and digits alone: nothing to escape in an address


def _password(files: Mapping[str, str], user: str) -> str:
    if user == "operator":
        return files[OPERATOR_PASSWORD].strip()
    name = f"amqp_url_{user}"
    try:
        password = unquote(urlsplit(files[name].strip()).password or "")
    except ValueError:
        password = ""
    if not password:
        raise Unusable(f"secrets/{name}: is not an AMQP address with a password; delete it to have a new one made")
    return password


def _hashes(text: str) -> dict[str, str]:
    """By user, of definitions that were written before; none when they are not readable."""
    try:
        found: Any = msgspec.json.decode(text)
        return {one["name"]: one["password_hash"] for one in found.get("users", [])}
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError):
        return {}


def env_text(values: Mapping[str, str]) -> str:
    """A new `.env`."""
    head = [
        "# Settings that are no secrets (those are files in secrets/): docs/settings.md, docs/operations.md.",
        "# After a change: docker compose up -d",
        "#",
        "# Who reaches the site: this machine alone, until this line is on.",
        "# PUBLISH_ADDRESS=0.0.0.0",
        "",
    ]
    return "\n".join([*head, *(f"{name}={value}" for name, value in values.items())]) + "\n"


def env_completed(text: str, found: Mapping[str, str | None], values: Mapping[str, str]) -> tuple[str, list[str]]:
    """`.env` with what it does not have yet at its end → the text, and the names that were added or filled in."""
    missing = [name for name, value in values.items() if value and not found.get(name)]
    kept = [line for line in text.splitlines() if line.split("=")[0].strip() not in missing]
    lines = [*kept, *(f"{name}={values[name]}" for name in missing)]
    return ("\n".join(lines) + "\n", missing) if missing else (text, [])


def secrets_in(found: Mapping[str, str | None]) -> list[str]:
    """Names in `.env` that belong into `secrets/`: there they would beat the files, in every container."""
    names = {name.upper() for name in (*_fresh(Wanted("")), *OPTIONAL, "database_url", "amqp_management_url")}
    return sorted(name for name, value in found.items() if value and name in {*names, "AMQP_URL", "EVENTS_AMQP_URL"})
