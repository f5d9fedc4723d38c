"""The engine, its images, and the project on them: set up by `gateway init`, onboarded, added up, taken down again."""

from __future__ import annotations

import secrets
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from ops.admin import AdminApi
from ops.demo.teller import Teller
from sandbox.driver import SandboxDriver
from tests.compose.command import Failed
from tests.compose.engine import WORK, Engine, NoEngine, engine
from tests.compose.images import NoImage, ensure
from tests.compose.project import BROKER, ComposeFailed, Project, prepared
from tests.compose.world import OURS, World, add_subscriber, subscriber
from tests.waiting import until

NO_ENGINE = 77
"""Exit code, automake's for what cannot be tested here."""


@pytest.fixture(scope="session")
def tell() -> Teller:
    """Progress for whoever watches."""
    return Teller()


@pytest.fixture(scope="session")
def docker(tell: Teller) -> Iterator[Engine]:
    """An engine; the run ends with one sentence where none can be had."""
    with ExitStack() as ending:
        try:
            found = ending.enter_context(engine(tell.line))
        except NoEngine as reason:
            pytest.exit(str(reason), returncode=NO_ENGINE)
        yield found


@pytest.fixture(scope="module")
def checkout() -> Iterator[Path]:
    """Not in pytest's own directory: of that, runs that begin meanwhile remove what they find old."""
    with tempfile.TemporaryDirectory(prefix="gateway-compose-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(docker: Engine, tell: Teller, checkout: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Everything up, healthy and onboarded; what a subscriber heard in all adds up at the end."""
    failed_before = request.session.testsfailed
    tell.heading(f"docker-compose.yml with {BROKER}")
    with tell.step("a copy of the checkout, gateway init --sandbox"):
        project = prepared(docker, f"gateway-test-{secrets.token_hex(3)}", checkout)
    try:
        with tell.step("the images that it is made of"):
            _images(docker, project, tell)
        async with _onboarded(project, tell) as made:
            yield made
            ledger = await made.settled("all is settled")
            tell.heading("The ledger")
            for line in ledger.lines():
                tell.line(line)
    finally:
        failed = sys.exc_info()[0] is not None or request.session.testsfailed > failed_before
        await _down(project, tell, keep_logs=failed)


def _images(docker: Engine, project: Project, tell: Teller) -> None:
    try:
        ensure(docker, project.images(), tell.line)
    except (Failed, NoImage) as reason:
        pytest.exit(str(reason), returncode=1)  # the same for every test


@asynccontextmanager
async def _onboarded(project: Project, tell: Teller) -> AsyncIterator[World]:
    with tell.step("docker compose build"):
        await project.compose("build")
    with tell.step("docker compose up"):
        # First without the stand-in, which takes the certificates that the proxy has yet to make.
        await project.compose("up", "-d", *OURS, "proxy")
        authority = await until(lambda: _authority(project), 60, "the proxy's certificates", pace=0.5)
    (project.directory / "authorities.crt").write_text(authority)
    ports = project.ports
    async with AsyncExitStack() as ending:
        token = project.secret("admin_token")
        made = World(
            project=project,
            tell=tell,
            site=project.site,
            admin_token=token,
            authorities=ssl.create_default_context(cadata=authority),
            sandbox=await ending.enter_async_context(SandboxDriver(f"http://127.0.0.1:{ports.sandbox}")),
            admin=await ending.enter_async_context(AdminApi(f"http://127.0.0.1:{ports.ops}", token)),
        )
        with tell.step("docker compose --profile sandbox up --wait"):
            await made.up()
        await ending.enter_async_context(subscriber(await add_subscriber(project), made.events))
        await made.onboard()
        yield made


async def _authority(project: Project) -> str:
    """The certificate that the proxy signs its own with; empty until there is one."""
    try:
        return await project.compose("exec", "-T", "proxy", "cat", "/data/caddy/pki/authorities/local/root.crt")
    except ComposeFailed:
        return ""


async def _down(project: Project, tell: Teller, *, keep_logs: bool) -> None:
    if keep_logs:
        logs = WORK / "logs" / project.name
        logs.mkdir(parents=True)
        (logs / "compose.log").write_text(await project.compose("logs", "--no-color", "--timestamps"))
        (logs / "containers.txt").write_text("\n".join(map(str, await project.containers())))
        tell.line(f"What all containers said is in {logs}.")
    with tell.step("docker compose down -v"):
        await project.compose("down", "-v", "--remove-orphans", "--timeout", "10")
        await project.docker("rmi", project.name)  # Compose takes an image with a name of its own for somebody else's
