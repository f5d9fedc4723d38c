"""The choice "a RabbitMQ that already answers on localhost:5672": a virtual host of our own on it."""

import atexit
import functools
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from ops.broker.broker import Broker, NotHere, Say, VhostAdmin, VhostRefused, on_vhost, unique
from ops.broker.probe import let_in
from ops.broker.vhosts import ByCtl, ByManagement

_PORT, _MANAGEMENT_PORT = 5672, 15672
_USER = _PASSWORD = "guest"  # noqa: S105  # RabbitMQ's own default, which it lets in from localhost only


def on_localhost(name: str, environment: Mapping[str, str], say: Say, plugins: Sequence[str]) -> Broker:
    """The machine's broker, by a new virtual host. Raises NotHere when none answers or none can be made."""
    try:
        socket.create_connection(("localhost", _PORT), timeout=1).close()
    except OSError as error:
        raise NotHere(f"nothing listens on localhost:{_PORT}") from error
    url = f"amqp://{_USER}:{_PASSWORD}@localhost:{_PORT}/%2F"
    let_in(url)
    reasons: list[str] = []
    management = f"http://localhost:{_MANAGEMENT_PORT}"
    admins: list[VhostAdmin] = [ByManagement(management, _USER, _PASSWORD, timeout=5.0), *_by_ctl()]
    for admin in admins:
        try:
            own = on_own_vhost(url, admin, name)
        except (NotHere, VhostRefused) as error:
            reasons.append(str(error))
            continue
        own.origin = "localhost"
        own.story = f"RabbitMQ on localhost:{_PORT}, in a virtual host of its own"
        own.management = management if isinstance(admin, ByManagement) else None
        return own
    raise NotHere(f"a RabbitMQ answers on localhost:{_PORT}, but no virtual host can be made: {'; '.join(reasons)}")


def on_own_vhost(url: str, admin: VhostAdmin, name: str) -> Broker:
    """The broker of `url` by a new virtual host, removed when it is closed. Raises VhostRefused, NotHere.

    What was made is tried: the management API or rabbitmqctl may well belong to another broker than the port.
    """
    vhost = unique(name)

    def remove() -> None:
        atexit.unregister(remove)
        _remove(admin, vhost)

    atexit.register(remove)  # from here on, whatever interrupts us
    own = on_vhost(url, vhost)
    try:
        admin.create([vhost])
        let_in(own)
    except (NotHere, VhostRefused):
        remove()
        raise
    return Broker(own, "AMQP_URL", "", admin, on_close=[remove])


def run_ctl(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """rabbitmqctl of the machine's own node."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_"))}
    return subprocess.run(
        [program, *arguments], input="", env=environment, capture_output=True, text=True, timeout=20, check=False
    )


def _by_ctl() -> Iterator[ByCtl]:
    """One that runs rabbitmqctl, where the machine has one."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/opt/homebrew/sbin:/usr/local/sbin"
    program = shutil.which("rabbitmqctl", path=path)
    if program is not None:
        yield ByCtl(functools.partial(run_ctl, program), _USER)


def _remove(admin: VhostAdmin, vhost: str) -> None:
    try:
        admin.delete([vhost])
    except VhostRefused:
        return  # the broker has gone meanwhile, or soon will; there is nobody left to tell
