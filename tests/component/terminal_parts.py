"""A terminal where the commands that speak to a running ingress are run, and that ingress."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from common.codec import loads
from ops.cli import app
from tests.component.gateway_parts import Gateway, running


@dataclass
class Terminal:
    """Where commands are run."""

    gateway: Gateway
    url: str

    async def run(self, *words: str, typed: str | bytes = "") -> Result:
        """In a thread, as each has an event loop of its own; `typed` is what stands on stdin."""
        return await asyncio.to_thread(CliRunner().invoke, app, [*words, "--url", self.url], input=typed)

    async def says(self, *words: str, typed: str = "") -> str:
        """What one prints that succeeds, with blanks made one."""
        result = await self.run(*words, typed=typed)
        assert result.exit_code == 0, (result.output, result.exception)
        return " ".join(result.output.split())

    async def result(self, *words: str) -> Any:
        """The JSON of one that succeeds; nothing else may be in its output."""
        result = await self.run(*words, "--json")
        assert result.exit_code == 0, (result.output, result.exception)
        return loads(result.stdout.encode())

    async def refusal(self, *words: str, typed: str = "", code: int = 1) -> str:
        result = await self.run(*words, typed=typed)
        assert result.exit_code == code, result.output
        return f"{result.output} {result.exception}"


@asynccontextmanager
async def terminal_at(database_url: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> AsyncIterator[Terminal]:
    """In that folder, with the operator's token."""
    for name in [one for one in os.environ if one.startswith(("ADMIN_", "SITE_", "OPS_", "HTTP_", "API_", "OIDC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ADMIN_TOKEN", "operators-token")
    monkeypatch.chdir(folder)
    # The ingress is in this process: what it logs is not a command's output.
    with capture_logs():
        async with running(database_url) as gateway:
            yield Terminal(gateway, str(gateway.http.make_url("/")))
