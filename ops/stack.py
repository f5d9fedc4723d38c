"""The gateway's processes as real child processes: settings in, processes that run, are killed, and end.

async with Stack(environment(amqp_url=broker.url, database_url=...), directory) as stack:
    await stack.start("sandbox", arguments=sandbox_arguments(stack.environment))
    await stack.start("ingress")
    await stack.start("fetch", 3)          # fetch-1, fetch-2, fetch-3
    await stack.wait_ready()
    await stack.kill("fetch-2")
"""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from cryptography.fernet import Fernet

from ops.children import die_with_parent, free_port

ROLES: Mapping[str, tuple[str, ...]] = {
    "ingress": ("ingress",),
    "token": ("workers", "token"),
    "fetch": ("workers", "fetch"),
    "reconcile": ("workers", "reconcile"),
    "relay": ("workers", "relay"),
    "all": ("workers", "all"),
    "sandbox": ("sandbox",),
}
"""What `python -m` is told for each role."""

WORKERS = ("token", "fetch", "reconcile", "relay")

_ROOT = Path(__file__).resolve().parent.parent
_HANDED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "USER", "SSL_CERT_FILE", "SSL_CERT_DIR")


class StackFailed(Exception):
    """A process ended that should run, or did not get ready in time; the text has the end of its log."""


@dataclass
class Child:
    """One process, by the name it keeps over restarts; all it says goes to `log`."""

    name: str
    role: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    log: Path
    process: Process = field(repr=False)

    @property
    def running(self) -> bool:
        return self.process.returncode is None


@dataclass(frozen=True)
class Finished:
    """What a command that ran to its end left: exit code, and stdout with stderr."""

    code: int
    output: str


def environment(
    *,
    amqp_url: str,
    database_url: str,
    http_port: int | None = None,
    sandbox_port: int | None = None,
    management: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """A complete environment for one stack: fresh secrets, loopback addresses, the sandbox as Syncaroo.

    Ports are free ones where none is given. `management` is the broker's management API, `settings` has the last word.
    Of our own environment only what every program needs is handed on, so that nobody's settings leak in.
    """
    http_port = http_port or free_port()
    sandbox = f"127.0.0.1:{sandbox_port or free_port()}"
    handed_on = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    path = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "AMQP_URL": amqp_url,
        "DATABASE_URL": database_url,
        "SITE_URI": f"http://127.0.0.1:{http_port}",
        "HTTP_HOST": "127.0.0.1",
        "HTTP_PORT": str(http_port),
        "SECRET_KEYS": Fernet.generate_key().decode(),
        "ADMIN_TOKEN": secrets.token_urlsafe(24),
        "PLATFORM_CLIENT_ID": "syncaroo-" + secrets.token_hex(4),
        "PLATFORM_CLIENT_SECRET": secrets.token_urlsafe(32),
        "PLATFORM_REDIRECT_URIS": f"http://{sandbox}/connection",
        "SYNCAROO_BASE_URL": f"http://{sandbox}",
        "SYNCAROO_API_HOSTS": sandbox,
        "SYNCAROO_ALLOW_HTTP": "true",
        "SYNCAROO_CLIENT_ID": "platform-" + secrets.token_hex(4),
        "SYNCAROO_CLIENT_SECRET": secrets.token_urlsafe(32),
    }
    if management:
        own["AMQP_MANAGEMENT_URL"] = management
    return {**handed_on, **own, **(settings or {})}


class Stack:
    """Starts and ends processes by name; ends only what it started, and on Linux they never outlive us.

    `directory` holds the logs and is where the processes run, so that no `.env` of the checkout reaches them. `grace`
    is how many seconds a process has between SIGTERM and SIGKILL; `through` is a module that runs the role's instead of
    Python's `-m`. Use it from one event loop, in the main thread.
    """

    def __init__(
        self, environment: Mapping[str, str], directory: Path, *, grace: float = 25.0, through: str | None = None
    ) -> None:
        self.environment = dict(environment)
        self.directory = directory
        self._grace = grace
        self._through = ["-m", through] if through else ["-m"]
        self._children: dict[str, Child] = {}
        self._counts: dict[str, int] = {}
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """Where the first ingress listens, without a slash at its end."""
        return f"http://{self.environment['HTTP_HOST']}:{self.environment['HTTP_PORT']}"

    @property
    def sandbox_url(self) -> str:
        return self.environment["SYNCAROO_BASE_URL"]

    async def start(
        self,
        role: str,
        n: int = 1,
        *,
        arguments: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
    ) -> list[str]:
        """Starts `n` processes of a role → their names, `role-1` and on.

        `settings` are added to the environment of these; `command` is run instead of `-m <module>` by the same Python
        (tests put a wrapper there). A second ingress listens on a free port of its own: see `url_of`.
        """
        module = [*self._through, *ROLES[role]] if command is None else list(command)
        return [await self._start(role, [sys.executable, *module, *arguments], settings or {}) for _ in range(n)]

    async def run(self, *arguments: str, settings: Mapping[str, str] | None = None, timeout: float = 60.0) -> Finished:
        """Runs `python <arguments>` with the stack's environment to its end; raises TimeoutError, having killed it."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            env={**self.environment, **(settings or {})},
            cwd=self.directory,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), timeout)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Finished(process.returncode or 0, output.decode(errors="replace"))

    def names(self, role: str | None = None) -> list[str]:
        """Of all processes that run, or those of one role."""
        return [c.name for c in self._children.values() if c.running and role in (None, c.role)]

    def running(self, name: str) -> bool:
        return self._children[name].running

    def pid(self, name: str) -> int:
        return self._children[name].process.pid

    def exit_code(self, name: str) -> int | None:
        """None while it runs; minus the signal's number when a signal ended it."""
        return self._children[name].process.returncode

    def url_of(self, name: str) -> str:
        """Where this ingress listens."""
        child = self._children[name].environment
        return f"http://{child['HTTP_HOST']}:{child['HTTP_PORT']}"

    def logs(self, name: str) -> str:
        """All that the process said so far, in all its lives."""
        return self._children[name].log.read_text(errors="replace")

    async def wait(self, name: str, timeout: float | None = None) -> int:
        """Waits for the process to end by itself → exit code. Raises TimeoutError."""
        return await asyncio.wait_for(self._children[name].process.wait(), timeout)

    async def terminate(self, name: str) -> int:
        """SIGTERM, SIGKILL after the grace → exit code (0 is what a well-behaved process gives)."""
        return (await self._end([self._children[name]]))[name]

    async def kill(self, name: str) -> int:
        """SIGKILL → exit code, -9."""
        child = self._children[name]
        self._signal(child, signal.SIGKILL)
        return await child.process.wait()

    def freeze(self, name: str) -> None:
        """SIGSTOP."""
        self._signal(self._children[name], signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self._signal(self._children[name], signal.SIGCONT)

    async def restart(self, name: str, settings: Mapping[str, str] | None = None) -> None:
        """Starts it again, same command and log; ended in good order before, when it still runs.

        `settings` are added to its environment, from now on.
        """
        child = self._children[name]
        child.environment = {**child.environment, **(settings or {})}
        if child.running:
            await self.terminate(name)
        child.process = await self._spawn(child.command, child.environment, child.log)

    async def wait_ready(self, timeout: float = 90.0) -> None:
        """Returns when `/readyz` of every running ingress says 200. Raises StackFailed.

        Also when any process ended meanwhile: waiting on would be in vain.
        """
        last = ""
        try:
            async with asyncio.timeout(timeout), aiohttp.ClientSession() as session:
                self._complain_of_the_dead()
                for child in self._of_role("ingress"):
                    last = f"{self.url_of(child.name)} has not answered"
                    while True:
                        self._complain_of_the_dead()
                        last = await _readiness(session, self.url_of(child.name))
                        if not last:
                            break
                        await asyncio.sleep(0.1)
        except TimeoutError:
            tails = "\n".join(self._tail(child) for child in self._of_role("ingress"))
            raise StackFailed(f"not ready within {timeout:g} s: {last}\n{tails}") from None

    async def stop(self) -> dict[str, int]:
        """SIGTERM to all, SIGKILL to who is left after the grace → exit codes of those that ran."""
        return await self._end([child for child in self._children.values() if child.running])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.stop()

    async def _start(self, role: str, command: Sequence[str], settings: Mapping[str, str]) -> str:
        number = self._counts[role] = self._counts.get(role, 0) + 1
        name = f"{role}-{number}"
        environment = {**self.environment, **settings}
        if role == "ingress" and number > 1 and "HTTP_PORT" not in settings:
            environment["HTTP_PORT"] = str(free_port())
        log = self.directory / f"{name}.log"
        process = await self._spawn(command, environment, log)
        self._children[name] = Child(name, role, command, environment, log, process)
        return name

    async def _spawn(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        with log.open("ab") as out:
            return await asyncio.create_subprocess_exec(
                *command,
                env=environment,
                cwd=self.directory,
                stdin=DEVNULL,
                stdout=out,
                stderr=STDOUT,
                start_new_session=True,  # Ctrl-C on the terminal is for us to pass on, once
                preexec_fn=die_with_parent(),
            )

    async def _end(self, children: Sequence[Child]) -> dict[str, int]:
        for child in children:
            self._signal(child, signal.SIGTERM)
            self._signal(child, signal.SIGCONT)  # a frozen one could not hear the first
        try:
            async with asyncio.timeout(self._grace):
                await _ended(children)
        except TimeoutError:
            pass
        finally:
            for child in children:
                self._signal(child, signal.SIGKILL)
        await _ended(children)
        return {child.name: child.process.returncode or 0 for child in children}

    def _signal(self, child: Child, number: signal.Signals) -> None:
        if child.running:
            with contextlib.suppress(ProcessLookupError):
                # Not the process object's own: that looks for the exit code first and takes it from who waits for it.
                os.kill(child.process.pid, number)

    def _of_role(self, role: str) -> Iterable[Child]:
        return [child for child in self._children.values() if child.role == role and child.running]

    def _complain_of_the_dead(self) -> None:
        for child in self._children.values():
            if child.process.returncode is not None and child.process.returncode >= 0:  # who was killed is no surprise
                raise StackFailed(f"{child.name} ended with exit code {child.process.returncode}\n{self._tail(child)}")

    def _tail(self, child: Child) -> str:
        lines = child.log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join([f"--- {child.name}", *lines])


def sandbox_arguments(environment: Mapping[str, str], *more: str) -> list[str]:
    """The stand-in's flags that make it the Syncaroo of this environment; `more` are added."""
    address = urlsplit(environment["SYNCAROO_BASE_URL"])
    flags = {
        "host": address.hostname or "127.0.0.1",
        "port": str(address.port or 80),
        "platform-url": environment["SITE_URI"],
        "platform-client-id": environment["PLATFORM_CLIENT_ID"],
        "platform-client-secret": environment["PLATFORM_CLIENT_SECRET"],
        "client-id": environment["SYNCAROO_CLIENT_ID"],
        "client-secret": environment["SYNCAROO_CLIENT_SECRET"],
    }
    return [*(f"--{name}={value}" for name, value in flags.items()), *more]  # a secret may begin with a dash


async def _ended(children: Sequence[Child]) -> None:
    await asyncio.gather(*(child.process.wait() for child in children))


async def _readiness(session: aiohttp.ClientSession, base: str) -> str:
    """Empty when ready, else why not."""
    try:
        async with session.get(f"{base}/readyz", timeout=aiohttp.ClientTimeout(total=3)) as answer:
            return "" if answer.status == 200 else f"{answer.status} {(await answer.text())[:300]}"
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"{base} does not answer ({type(error).__name__})"
