"""The Compose project of a copy of the checkout: commands as an operator types them, and how the containers are."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.codec import loads
from ops.children import free_ports
from tests.compose.command import run
from tests.compose.engine import Engine
from tests.compose.images import bases

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = Path(sys.executable).parent / "docker-compose"
GATEWAY = Path(sys.executable).parent / "gateway"

_HANDED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "DOCKER_HOST", "DOCKER_CONFIG", "SSL_CERT_FILE")
LONG = 600.0
"""Seconds that a command may take; limits here are for machines with much else to do, and cost nothing on others."""
PROFILES = "sandbox"
BROKER = os.environ.get("RABBITMQ_IMAGE") or "rabbitmq:4-management"

QUICK = """
API_RATE_PER_SECOND=200
RECHECK_AFTER=3s
RETRY_DELAYS=500ms,1s,2s
TARGET_INTERVAL=200ms
"""
"""Lines for `.env`: smaller than the defaults, so that trouble is over soon once its cause is."""


class ComposeFailed(Exception):
    """A command ended with another code than 0; the text has what it said."""


@dataclass(frozen=True)
class Container:
    """One, as it is now. `health` is empty where no check is defined."""

    id: str
    service: str
    number: int
    running: bool
    exit_code: int
    health: str
    restarts: int
    user: str

    @property
    def well(self) -> bool:
        """Runs and is healthy, as far as that is checked."""
        return self.running and self.health in {"", "healthy"}


@dataclass(frozen=True)
class Ports:
    """Where it is reached on this machine's loopback."""

    http: int
    https: int
    ops: int
    management: int
    sandbox: int
    subscriber: int


class Project:
    """The copy in `directory` and its containers, called `name` at the engine.

    Of our own environment only what every program needs is handed on: nobody's settings leak in.
    """

    def __init__(self, engine: Engine, name: str, directory: Path) -> None:
        self.engine = engine
        self.name = name
        self.directory = directory
        self.ports = Ports(*free_ports(6))
        self.site = f"https://gateway.localhost:{self.ports.https}"
        handed_on = {key: os.environ[key] for key in _HANDED_ON if key in os.environ}
        self._environment = {**handed_on, **engine.environment, **self._settings()}

    def _settings(self) -> dict[str, str]:
        return {
            "COMPOSE_PROJECT_NAME": self.name,
            "COMPOSE_PROFILES": PROFILES,
            "COMPOSE_FILE": os.pathsep.join(["docker-compose.yml", "tests/compose/compose.tests.yml"]),
            "RABBITMQ_IMAGE": BROKER,
            "GATEWAY_IMAGE": self.name,
            "FRONT_SUBNET": f"172.16.{os.getpid() % 250}.0/24",  # beside what engines take by themselves
            "PROXY_HTTP_PORT": str(self.ports.http),
            "OPS_PUBLISH_PORT": str(self.ports.ops),
            "MANAGEMENT_PUBLISH": f"127.0.0.1:{self.ports.management}",
            "SUBSCRIBER_PORT": str(self.ports.subscriber),
        }

    def secret(self, name: str) -> str:
        """What `gateway init` wrote."""
        return (self.directory / "secrets" / name).read_text().strip()

    def images(self) -> list[str]:
        """Those that somebody else makes."""
        named = self.run(str(COMPOSE), "config", "--images").split()
        return sorted({*named, *bases((self.directory / "Dockerfile").read_text())} - {self.name})

    def run(self, *command: str, timeout: float = 60.0) -> str:
        """Any command in the copy → what it printed."""
        done = subprocess.run(
            command,
            env=self._environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise ComposeFailed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    async def compose(self, *arguments: str, profiles: str = PROFILES, timeout: float = LONG) -> str:
        """`docker compose …` with the services of these profiles → what it printed on stdout and stderr.

        Raises:
            ComposeFailed: it failed.
            TimeoutError: it did not end within `timeout` seconds, and was killed.
        """
        process = await asyncio.create_subprocess_exec(
            *(str(COMPOSE), *arguments),
            env={**self._environment, "COMPOSE_PROFILES": profiles},
            cwd=self.directory,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(), timeout)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        text = said.decode(errors="replace")
        if process.returncode:
            raise ComposeFailed(f"docker compose {' '.join(arguments)} ended with {process.returncode}:\n{text}")
        return text

    async def containers(self, *services: str) -> list[Container]:
        """Those of these services, or all, also those that have ended; by service and number."""
        return await asyncio.to_thread(self._containers, services)

    async def kill(self, container: Container, signal: str = "KILL") -> None:
        """`docker kill`: the engine does not start it again by itself."""
        await asyncio.to_thread(self.engine.docker, "kill", "-s", signal, container.id)

    async def docker(self, *arguments: str) -> str:
        """A command of docker's, without blocking."""
        return await asyncio.to_thread(self.engine.docker, *arguments)

    def _containers(self, services: tuple[str, ...]) -> list[Container]:
        wanted = f"label=com.docker.compose.project={self.name}"
        ids = self.engine.docker("ps", "-aq", "--no-trunc", "--filter", wanted).split()
        found = loads(self.engine.docker("inspect", *ids).encode()) if ids else []
        every = [_container(one) for one in found]
        chosen = [one for one in every if not services or one.service in services]
        return sorted(chosen, key=lambda one: (one.service, one.number))


def prepared(engine: Engine, name: str, directory: Path) -> Project:
    """A copy of the checkout in an empty directory, set up as its README says."""
    _copy_checkout(directory)
    project = Project(engine, name, directory)
    project.run(str(GATEWAY), "init", "--sandbox", "--site", project.site)
    settings = directory / ".env"
    settings.write_text(settings.read_text().replace("8090", str(project.ports.sandbox)) + QUICK)
    return project


def _copy_checkout(target: Path) -> None:
    """What git knows of the working tree, changed files as they are, and nothing else."""
    listed = run(["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"], {}, 60)
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(source.read_bytes())
            (target / name).chmod(source.stat().st_mode & 0o777)


def _container(found: Mapping[str, Any]) -> Container:
    labels, state = found["Config"]["Labels"], found["State"]
    return Container(
        id=found["Id"],
        service=labels["com.docker.compose.service"],
        number=int(labels["com.docker.compose.container-number"]),
        running=state["Running"] and not state["Restarting"],
        exit_code=state["ExitCode"],
        health=state.get("Health", {}).get("Status", ""),
        restarts=found["RestartCount"],
        user=found["Config"]["User"],
    )
