"""`gateway init`: `.env` and `secrets/` for `docker compose up`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from dotenv import dotenv_values
from pydantic import TypeAdapter, ValidationError

from common.settings import HttpUrl, Secret
from ops.installation import (
    DEFINITIONS,
    SYNCAROO_SECRET,
    Unusable,
    Wanted,
    env_completed,
    env_text,
    env_values,
    secret_files,
    secrets_in,
)
from ops.terminal import AsJson, out, print_json

EPILOG = (
    "Example: [bold]gateway init --site https://yourapp.com[/bold], "
    "or [bold]gateway init --sandbox[/bold] to look around"
)
LOCAL_SITE = "https://localhost"
SANDBOX_SITE = "http://gateway.localhost"
DIRECTORY_MODE, FILE_MODE, ENV_MODE = 0o700, 0o644, 0o640
"""A container sees a secret's file with the owner and mode that it has here, and reads it as another user. So the files
may be read by all, in a directory that lets nobody but its owner in; containers are given the files, not the directory.
"""


@dataclass
class Done:
    """What became of each file, by its name."""

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    """Names added to `.env`."""


def init(
    site: Annotated[str | None, typer.Option(help="Where you are reached: https://yourapp.com.")] = None,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="With the stand-in Syncaroo; fills in everything.")
    ] = False,
    directory: Annotated[Path, typer.Option(help="Where docker-compose.yml is.")] = Path(),
    client_id: Annotated[
        str | None, typer.Option("--syncaroo-client-id", help="From Syncaroo's developer portal.")
    ] = None,
    client_secret_file: Annotated[
        Path | None, typer.Option("--syncaroo-client-secret-file", help="A file that holds the secret from there.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Begin anew: what is there is put aside, under a name with the time.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write .env and secrets/ with fresh keys and passwords for Compose. What is there is kept; nothing is shown."""
    found = {} if force else dotenv_values(directory / ".env")
    wanted = _wanted(site or found.get("SITE_URI"), sandbox, client_id, client_secret_file)
    if not (sandbox or as_json) and sys.stdin.isatty():
        wanted = _asked(wanted, found, directory)
    if force:
        _put_aside(directory)
    done = write(directory, wanted)
    if as_json:
        print_json(_report(directory, done))
    else:
        _tell(directory, wanted, done)


def _wanted(site: str | None, sandbox: bool, client_id: str | None, secret_file: Path | None) -> Wanted:
    secret = "" if secret_file is None else _checked(_read(secret_file), Secret, "--syncaroo-client-secret-file")
    site = site or (SANDBOX_SITE if sandbox else LOCAL_SITE)
    return Wanted(_site(site), sandbox, client_id or "", secret)


def _site(text: str) -> str:
    site = str(_checked(text, HttpUrl, "--site"))
    parts = urlsplit(site)
    host = parts.hostname or ""
    if parts.path or parts.fragment:
        raise typer.BadParameter("--site: is scheme and host alone, such as https://yourapp.com")
    if parts.scheme == "http" and host != "localhost" and not host.endswith(".localhost"):
        raise typer.BadParameter("--site: must be https; http is for localhost")
    return site


def _checked(value: str, kind: Any, name: str) -> str:
    try:
        found = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        reason = str(error.errors(include_input=False)[0]["msg"]).removeprefix("Value error, ")
        raise typer.BadParameter(f"{name}: {reason}") from None
    return str(found.get_secret_value() if hasattr(found, "get_secret_value") else found)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise Unusable(f"{path}: cannot be read") from None


def _asked(wanted: Wanted, found: Mapping[str, str | None], directory: Path) -> Wanted:
    """What is not known yet, from a person; an empty answer leaves it for later."""
    client_id, secret = wanted.client_id, wanted.client_secret
    if not (client_id or found.get("SYNCAROO_CLIENT_ID")):
        client_id = typer.prompt("Client id from Syncaroo's developer portal (empty: later)", default="", err=True)
    path = directory / "secrets" / SYNCAROO_SECRET
    if not secret and not (path.exists() and _read(path)):
        secret = typer.prompt("And its secret (not shown; empty: later)", default="", hide_input=True, err=True)
        secret = _checked(secret, Secret, "the secret") if secret else ""
    return Wanted(wanted.site, wanted.sandbox, client_id.strip(), secret)


def write(directory: Path, wanted: Wanted) -> Done:
    """Write what is missing into `.env` and `secrets/`.

    Raises:
        Unusable: what is there does not fit.
    """
    done = Done()
    found = dotenv_values(directory / ".env")
    if misplaced := secrets_in(found):
        raise Unusable(
            f".env: {', '.join(misplaced)}: secrets are files here, which these would beat in every container. "
            "Move each value to secrets/ (the file's name is the setting's in lower case) or delete it."
        )
    _write_secrets(directory / "secrets", wanted, done)
    _write_env(directory / ".env", found, env_values(wanted), done)
    return done


def _write_secrets(directory: Path, wanted: Wanted, done: Done) -> None:
    directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    directory.chmod(DIRECTORY_MODE)
    # Those with a dot are no secrets: an editor's, or halves that a full disk has left.
    ours = [path for path in sorted(directory.iterdir()) if path.is_file() and not path.name.startswith(".")]
    found = {path.name: _read(path) for path in ours}
    for name, text in secret_files(wanted, found).items():
        if found.get(name) == text:
            done.kept.append(f"secrets/{name}")
            (directory / name).chmod(FILE_MODE)
        else:
            _write(directory / name, text, FILE_MODE)
            done.written.append(f"secrets/{name}")


def _write_env(path: Path, found: Mapping[str, str | None], values: Mapping[str, str], done: Done) -> None:
    if not path.exists():
        _write(path, env_text(values), ENV_MODE)
        done.written.append(".env")
        return
    text, done.completed = env_completed(path.read_text(encoding="utf-8"), found, values)
    if done.completed:
        _write(path, text, path.stat().st_mode & 0o777)
    else:
        done.kept.append(".env")


def _write(path: Path, text: str, mode: int) -> None:
    """In one step: whoever looks sees the old file or the new one; never open to more than it will be."""
    partial = path.with_name(f".{path.name}.new")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
    partial.replace(path)


def _put_aside(directory: Path) -> None:
    ending = time.strftime("before-%Y%m%d-%H%M%S")
    for name in (".env", "secrets"):
        if (directory / name).exists():
            (directory / name).rename(directory / f"{name}.{ending}")


def _open_ends(directory: Path) -> list[str]:
    """What a person has yet to fill in."""
    settings = dotenv_values(directory / ".env")
    ends = [] if settings.get("SYNCAROO_CLIENT_ID") else ["SYNCAROO_CLIENT_ID in .env"]
    return ends if _read(directory / "secrets" / SYNCAROO_SECRET) else [*ends, f"secrets/{SYNCAROO_SECRET}"]


def _report(directory: Path, done: Done) -> dict[str, Any]:
    return {
        "written": done.written,
        "kept": done.kept,
        "completed": done.completed,
        "missing": _open_ends(directory),
    }


def _tell(directory: Path, wanted: Wanted, done: Done) -> None:
    for verb, names in (("written", done.written), ("kept", done.kept), ("added to .env", done.completed)):
        if names:
            out.print(f"{verb}: {', '.join(names)}", markup=False)
    if f"secrets/{DEFINITIONS}" in done.written and done.kept:
        out.print("The broker reads its users when it starts: docker compose restart rabbitmq", markup=False)
    out.print("\nNext:", markup=False)
    for number, step in enumerate(_steps(directory, wanted), 1):
        out.print(f"{number}. {step}", markup=False)


def _steps(directory: Path, wanted: Wanted) -> list[str]:
    ends = _open_ends(directory)
    profile = " --profile sandbox" if wanted.sandbox else ""
    steps = [f"Fill in {' and '.join(ends)}, from Syncaroo's developer portal."] if ends else []
    steps.append(f"docker compose{profile} up -d --build --wait")
    if wanted.sandbox:
        return [*steps, f"Open {wanted.site} and http://syncaroo.localhost:8090; docs/operations.md tells the rest."]
    host = urlsplit(wanted.site).hostname or ""
    if host != "localhost" and not host.endswith(".localhost"):
        steps.insert(-1, "Let others in: PUBLISH_ADDRESS=0.0.0.0 in .env, once the name leads to this machine.")
    return [*steps, f"Open {wanted.site}/connect with the password in secrets/admin_token."]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=EPILOG)(init)
