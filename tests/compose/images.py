"""The images that the Compose project is made of: pulled where a registry answers, else stand-ins of Debian's packages.

A stand-in has the name of the image it stands for, so that `Dockerfile` and `docker-compose.yml` run as they are. It is
test scaffolding: good enough to run the project, and never pushed anywhere.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ops.broker.broker import NotHere, Say
from ops.broker.install import install
from tests.compose.command import Failed
from tests.compose.engine import WORK, Engine

RECIPES = Path(__file__).parent / "stand_ins"
LOG = WORK / "images.log"

_PULL = 240.0
_BASE = 600.0
_BUILD = 600.0
_TRIES = 3

_FROM = re.compile(r"^FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*$", re.IGNORECASE | re.MULTILINE)


class NoImage(Exception):
    """An image can neither be pulled nor stood in for; the text says which and why."""


@dataclass(frozen=True)
class StandIn:
    """`stand_ins/<recipe>` built on a release of Debian."""

    recipe: str
    suite: str


def stand_in(image: str) -> StandIn:
    """What stands in for an image: the release of Debian that has its version, or the nearest.

    Raises:
        NoImage: nothing does.
    """
    name, _, tag = image.rpartition("/")[2].partition(":")
    match name:
        case "python" if tag.startswith("3.11"):
            return StandIn("python", "bookworm")
        case "rabbitmq":
            return StandIn("rabbitmq", "bookworm" if tag.startswith("3") else "trixie")
        case "postgres":
            return StandIn("postgres", "trixie" if tag.startswith("17") else "bookworm")
        case "caddy":
            return StandIn("caddy", "bookworm")
    raise NoImage(f"{image} cannot be pulled, and nothing stands in for it")


def bases(dockerfile: str) -> list[str]:
    """The images that a Dockerfile is built from; its own stages are none."""
    found = _FROM.findall(dockerfile)
    stages = {stage for _, stage in found if stage}
    return sorted({image for image, _ in found if image not in stages})


def ensure(engine: Engine, images: Iterable[str], say: Say) -> None:
    """Every image is there afterwards. After the first that cannot be pulled no registry is asked again.

    Raises:
        NoImage: one could neither be pulled nor built; the log is named.
    """
    registry = True
    for image in sorted(set(images)):
        if has(engine, image):
            continue
        registry = registry and _pulled(engine, image, say)
        if not registry:
            _stand_in(engine, image, stand_in(image), say)


def has(engine: Engine, image: str) -> bool:
    """Whether the engine holds it."""
    try:
        engine.docker("image", "inspect", "--format", "{{.Id}}", image)
    except Failed:
        return False
    return True


def _pulled(engine: Engine, image: str, say: Say) -> bool:
    say(f"Pulling {image} …")
    try:
        engine.docker("pull", "-q", image, timeout=_PULL)
    except Failed as error:
        say(f"No registry answers ({error}): stand-ins are built from Debian's packages.")
        return False
    return True


def _stand_in(engine: Engine, image: str, recipe: StandIn, say: Say) -> None:
    base = f"gateway-stand-in:{recipe.suite}"
    if not has(engine, base):
        say(f"Building Debian {recipe.suite} …")
        _tried(lambda: _import(engine, base, recipe.suite), base)
    say(f"Building a stand-in for {image}: {recipe.recipe} of Debian {recipe.suite} …")
    with tempfile.TemporaryDirectory() as place:
        context = shutil.copytree(RECIPES / recipe.recipe, Path(place) / "context")
        shutil.copy(_authorities(), context / "authorities.crt")
        build = ["docker", "build", "--build-arg", f"BASE={base}", "-t", image, str(context)]
        _tried(lambda: _logged(build, engine, _BUILD), image)


def _tried(work: Callable[[], None], what: str) -> None:
    """Downloads fail now and then."""
    for left in reversed(range(_TRIES)):
        try:
            work()
        except Failed as error:
            if not left:
                raise NoImage(f"{what} cannot be built (log: {LOG}): {error}") from error
            time.sleep(2)
        else:
            return


def _import(engine: Engine, tag: str, suite: str) -> None:
    """Debian's own tool makes the file system; `docker import` makes an image of it."""
    if shutil.which("mmdebstrap") is None:
        try:
            install("mmdebstrap", os.environ, lambda line: None)
        except NotHere as error:
            raise NoImage(f"stand-ins need mmdebstrap: {error}") from error
    with tempfile.TemporaryDirectory() as place:
        archive = f"{place}/{suite}.tar"
        _logged(["mmdebstrap", "--variant=minbase", "--include=ca-certificates", suite, archive], engine, _BASE)
        _logged(["docker", "import", "-c", "ENV LANG=C.UTF-8", archive, tag], engine, _BUILD)


def _logged(command: list[str], engine: Engine, timeout: float) -> None:
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("a") as log:
        print(f"\n{' '.join(command)}", file=log, flush=True)
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **engine.environment, "DOCKER_BUILDKIT": "0"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{command[0]} did not end within {timeout:g} s") from error
    if done.returncode:
        raise Failed(f"{command[0]} ended with exit code {done.returncode}")


def _authorities() -> str:
    """This machine's certificate authorities: where something reads along on the way to the package index, pip inside a
    build has to trust it, too."""
    return (
        os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    )
