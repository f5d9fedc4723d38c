"""`python -m sandbox`: the stand-in alone, from flags, until SIGTERM or Ctrl-C (exit 0)."""

import argparse
import os
import socket
from pathlib import Path

import msgspec
from aiohttp import web

from sandbox.app import create_app
from sandbox.config import SandboxConfig

EPILOG = "A flag's environment variable is SANDBOX_ and its name in capitals (or + _FILE). sandbox/config.py has more."


def parser() -> argparse.ArgumentParser:
    """One flag per field of SandboxConfig; the environment's SANDBOX_… of the same name is its default."""
    made = argparse.ArgumentParser(prog="sandbox", description="A stand-in Syncaroo for one platform.", epilog=EPILOG)
    for field in msgspec.structs.fields(SandboxConfig):
        flag = "--" + field.name.replace("_", "-")
        default = _given("SANDBOX_" + field.name.upper())
        shown = ",".join(field.default) if isinstance(field.default, tuple) else str(field.default)
        is_switch = isinstance(field.default, bool)
        action = argparse.BooleanOptionalAction if is_switch else None
        extra = {"action": action} if action else {"metavar": type(field.default).__name__.upper()}
        made.add_argument(flag, default=default, help=f"default: {shown!r}", **extra)
    return made


def _given(name: str) -> str | None:
    """What the environment says, or the file that NAME_FILE names there."""
    path = os.environ.get(f"{name}_FILE")
    return Path(path).read_text(encoding="utf-8").strip() if path else os.environ.get(name)


def config_of(arguments: list[str] | None = None) -> SandboxConfig:
    """The configuration; a wrong value ends the program with argparse's message."""
    flags = parser()
    given = {name: value for name, value in vars(flags.parse_args(arguments)).items() if value is not None}
    if "confirm_uris" in given:
        given["confirm_uris"] = given["confirm_uris"].split(",")
    named = {f.encode_name: given[f.name] for f in msgspec.structs.fields(SandboxConfig) if f.name in given}
    try:
        return msgspec.convert(named, SandboxConfig, strict=False)
    except msgspec.ValidationError as error:
        flags.error(str(error))


def main(arguments: list[str] | None = None) -> None:
    config = config_of(arguments)
    bound = _bound(config.host, config.port)
    if config.port == 0:
        config = msgspec.structs.replace(config, port=bound.getsockname()[1])
    said = f"stand-in Syncaroo at {config.url}, for the platform at {config.platform_url}"
    web.run_app(
        create_app(config),
        sock=bound,
        print=lambda _: print(said, flush=True),  # called once it listens
        access_log=None,
        handle_signals=True,
    )


def _bound(host: str, port: int) -> socket.socket:
    """Not listening yet: whoever gets through to us may also end us properly, and signals are handled only later."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    return bound


if __name__ == "__main__":
    main()
