"""The choice "Docker": a throw-away container of RabbitMQ's official image on free loopback ports."""

import atexit
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence

from ops.broker.broker import Broker, NotHere, Say, unique
from ops.broker.probe import let_in
from ops.broker.vhosts import ByManagement

IMAGE = "rabbitmq:3.13-management"
_ANSWERS = 5.0  # seconds that an engine has to say its version
_PULL = 180.0
_READY = 90.0


def image(environment: Mapping[str, str]) -> str:
    """The image to run, `RABBITMQ_IMAGE` or ours."""
    return environment.get("RABBITMQ_IMAGE") or IMAGE


def ensure_image(environment: Mapping[str, str], say: Say) -> str:
    """Its name, once an engine answers and has it; pulled when missing. Raises NotHere."""
    if shutil.which("docker") is None:
        raise NotHere("there is no docker command")
    try:
        _docker(environment, _ANSWERS, "version", "--format", "{{.Server.Version}}")
    except NotHere as error:
        raise NotHere("no Docker engine answers") from error
    name = image(environment)
    try:
        _docker(environment, _ANSWERS, "image", "inspect", "--format", "{{.Id}}", name)
    except NotHere:
        say(f"Docker: pulling {name} (at most {_PULL / 60:.0f} minutes) …")
        try:
            _docker(environment, _PULL, "pull", "-q", name)
        except NotHere as error:
            raise NotHere(f"Docker answers, but {name} cannot be pulled ({error})") from error
    return name


def in_docker(name: str, environment: Mapping[str, str], say: Say, plugins: Sequence[str]) -> Broker:
    """A new container, removed when the broker is closed. Raises NotHere."""
    container = unique(name)
    image_name = ensure_image(environment, say)
    say(f"Docker: starting {image_name} …")
    _docker(
        environment,
        60.0,
        *("run", "-d", "--rm", "--pull=never", "--name", container, "--hostname", "rabbitmq"),
        *("-p", "127.0.0.1::5672", "-p", "127.0.0.1::15672", image_name),
    )

    def remove() -> None:
        atexit.unregister(remove)
        try:
            _docker(environment, 30.0, "rm", "-f", "-v", container)
        except NotHere as error:
            say(f"The container {container} is still there: {error}")

    atexit.register(remove)
    try:
        url = f"amqp://guest:guest@127.0.0.1:{_published(environment, container, 5672)}/%2F"
        management = f"http://127.0.0.1:{_published(environment, container, 15672)}"
        _wait(url)
    except NotHere:
        remove()
        raise
    admin = ByManagement(management, "guest", "guest")
    return Broker(url, "docker", f"RabbitMQ in a container of {image_name}", admin, management, [remove])


def _published(environment: Mapping[str, str], container: str, port: int) -> int:
    said = _docker(environment, _ANSWERS, "port", container, f"{port}/tcp")
    try:
        return int(said.splitlines()[0].rpartition(":")[2])
    except (IndexError, ValueError) as error:
        raise NotHere(f"Docker does not publish port {port}") from error


def _wait(url: str) -> None:
    deadline = time.monotonic() + _READY
    while True:
        try:
            return let_in(url)
        except NotHere:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def _docker(environment: Mapping[str, str], timeout: float, *arguments: str) -> str:
    """What docker printed, within `timeout` seconds. Raises NotHere with its last words."""
    try:
        done = subprocess.run(
            ["docker", *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotHere(f"docker {arguments[0]} did not end within {timeout:g} s") from error
    except OSError as error:
        raise NotHere("docker cannot be run") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise NotHere(f"docker {arguments[0]}: {said[-1][:200] if said else f'exit {done.returncode}'}")
    return done.stdout.strip()
