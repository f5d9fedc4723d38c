"""A RabbitMQ of our own: a child process from the distribution's package, on loopback, its data in one directory."""

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from ops.broker.broker import Broker, NotHere, VhostAdmin
from ops.broker.vhosts import ByCtl, ByManagement
from ops.children import die_with_parent, free_ports

_DIRECTORIES = (
    "/usr/lib/rabbitmq/bin",  # Debian, Ubuntu, Fedora: the scripts themselves; those in /usr/sbin change the user
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
    "/home/linuxbrew/.linuxbrew/opt/rabbitmq/sbin",
)
_SBIN = "RABBITMQ_SBIN"
"""Of another RabbitMQ than the distribution's: that of the generic binary, for one."""
_MORE_PATH = "/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/lib/erlang/bin:/usr/local/lib/erlang/bin"
_NAME = "gateway@localhost"  # unique per epmd, and the epmd is our own
_MEMORY = "512MB"
_HELLO = b"AMQP\x00\x00\x09\x01"
_SPAWNER = ThreadPoolExecutor(1, thread_name_prefix="starts nodes")
"""The kernel ends a child with the thread that started it, and whoever calls `start` may be one that ends before us."""


def scripts() -> Path:
    """The directory with `rabbitmq-server` and `rabbitmqctl`, `RABBITMQ_SBIN` if it is set. Raises NotHere."""
    chosen = os.environ.get(_SBIN)
    for directory in map(Path, [chosen] if chosen else _DIRECTORIES):
        if (directory / "rabbitmq-server").exists():
            if _which("erl") is None or _which("epmd") is None:
                raise NotHere("rabbitmq-server is installed, but Erlang (erl, epmd) is not")
            return directory
    raise NotHere(f"{_SBIN}={chosen} has no rabbitmq-server" if chosen else "rabbitmq-server is not installed")


_CTL_SECONDS = 180.0
"""A busy node, on a busy machine, has been seen to take more than 60."""


class PrivateNode:
    """One node that nobody else knows of, and that may be stopped, killed, frozen and started again on the same data.

    Listens on 127.0.0.1 only, has its own epmd, cookie, user and password. On Linux it never outlives us. `plugins`
    as RabbitMQ names them; `conf` is added to its rabbitmq.conf. Raises NotHere when the package is missing or the node
    does not come up.
    """

    def __init__(self, *, plugins: Sequence[str] = (), conf: str = "", directory: Path | None = None) -> None:
        self._scripts = scripts()
        self._directory = directory or Path(tempfile.mkdtemp(prefix="gateway-broker-"))
        self._keep_directory = directory is not None
        self._plugins = tuple(plugins)
        self._conf = conf
        self._user, self._password = "gateway", secrets.token_hex(12)
        self.port, self._management_port, self._dist_port, self._epmd_port = free_ports(4)
        self._broker: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    @property
    def url(self) -> str:
        return f"amqp://{self._user}:{self._password}@127.0.0.1:{self.port}/%2F"

    @property
    def management(self) -> str | None:
        """The management API's address, where its plugin was asked for."""
        return f"http://127.0.0.1:{self._management_port}" if "rabbitmq_management" in self._plugins else None

    @property
    def log(self) -> Path:
        return self._directory / "node.log"

    @property
    def pid(self) -> int | None:
        """Of the broker's own process; None while it is down."""
        return self._broker.pid if self._broker is not None and self._broker.poll() is None else None

    def broker(self) -> Broker:
        """This node as what `find()` gives; closing it closes the node."""
        admin: VhostAdmin = ByCtl(self._run_ctl, self._user)
        if self.management is not None:
            admin = ByManagement(self.management, self._user, self._password)
        story = f"RabbitMQ: a private node on 127.0.0.1:{self.port}"
        return Broker(self.url, "node", story, admin, self.management, [self.close])

    def start(self, timeout: float = 60.0) -> Self:
        """Starts the node and returns when it answers (AMQP, management); on the data and port of before, if any."""
        if self.pid is not None:
            return self
        self._write_configuration()
        environment = self._environment()
        if self._epmd is None or self._epmd.poll() is not None:
            epmd = [_which("epmd") or "epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            self._epmd = self._spawn(epmd, environment)
        self._broker = self._spawn([str(self._scripts / "rabbitmq-server")], environment)
        deadline = time.monotonic() + timeout
        while not (self.answers() and self._manages()):
            if self._broker.poll() is not None or time.monotonic() > deadline:
                ended = self._broker.poll()
                self.kill()
                why = f"did not answer within {timeout:g} s" if ended is None else f"ended with exit code {ended}"
                raise NotHere(f"the private RabbitMQ {why}: {self._last_words()}")
            time.sleep(0.05)
        return self

    def stop(self, grace: float = 30.0) -> None:
        """SIGTERM: the node writes everything down and goes; SIGKILL after `grace` seconds."""
        if self._broker is not None and self.pid is not None:
            self.resume()
            self._broker.terminate()
            try:
                self._broker.wait(grace)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self._broker is not None:
            self._broker.kill()
            self._broker.wait()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing answers any more."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def restart(self, timeout: float = 60.0) -> None:
        """Stops it (in good order, when it still runs) and starts it on the same data and port."""
        self.stop()
        self.start(timeout)

    def settle(self) -> None:
        """Makes what was declared so far survive a `kill()`.

        A quorum queue killed within about a second of its declaration stays without a leader for ever: Ra's register
        of names is written late. Call this after declaring and before the first kill.
        """
        self.ctl("eval", "[dets:sync(T) || T <- dets:all()].")

    def starve(self) -> None:
        """Raises the memory alarm: whoever publishes is blocked, consumers go on."""
        self.ctl("set_vm_memory_high_watermark", "absolute", "1000")

    def feed(self) -> None:
        """Ends what `starve()` began."""
        self.ctl("set_vm_memory_high_watermark", "absolute", _MEMORY)

    def ctl(self, *arguments: str) -> str:
        """rabbitmqctl on this node → what it printed. Raises CalledProcessError when it refuses."""
        done = self._run_ctl("-q", *arguments)
        done.check_returncode()
        return done.stdout

    def answers(self) -> bool:
        """Whether the AMQP listener speaks; it is what a node opens last."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(_HELLO)
                return bool(connection.recv(1))
        except OSError:
            return False

    def _manages(self) -> bool:
        """Whether the management API, where it was asked for, answers: it may be later than AMQP."""
        if self.management is None:
            return True
        try:
            with socket.create_connection(("127.0.0.1", self._management_port), timeout=1) as connection:
                connection.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
                return bool(connection.recv(1))
        except OSError:
            return False

    def close(self) -> None:
        """Kills the node, its epmd, and removes its data (a directory that was given stays)."""
        atexit.unregister(self.close)
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
        if not self._keep_directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._broker is not None and self.pid is not None:
            self._broker.send_signal(number)

    def _run_ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._scripts / "rabbitmqctl"), "-n", _NAME, *arguments],
            env=self._environment(),
            input="",
            capture_output=True,
            text=True,
            timeout=_CTL_SECONDS,
            check=False,
        )

    def _spawn(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        return _SPAWNER.submit(self._spawn_here, command, environment).result()

    def _spawn_here(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                env=environment,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C on the terminal is for us to handle, not for the node
                preexec_fn=die_with_parent(),  # noqa: PLW1509  # it takes no lock between fork and exec
            )

    def _write_configuration(self) -> None:
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            "log.console = true",
            "log.console.level = warning",
            "log.file = false",
            f"vm_memory_high_watermark.absolute = {_MEMORY}",
            "disk_free_limit.absolute = 50MB",
        ]
        if self.management is not None:
            lines += ["management.tcp.ip = 127.0.0.1", f"management.tcp.port = {self._management_port}"]
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "rabbitmq.conf").write_text("\n".join(lines) + "\n" + self._conf)
        (self._directory / "enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n")

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_"))}
        here = self._directory
        schedulers = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"  # few, and none that spins while idle
        return inherited | {
            "PATH": f"{os.environ.get('PATH', '')}:{_MORE_PATH}",
            "HOME": str(here),  # where the cookie is made
            "ELIXIR_ERL_OPTIONS": "+fnu",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": _NAME,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": f"{here}/data",
            "RABBITMQ_LOG_BASE": f"{here}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",  # or the machine's own settings would win
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq.conf",
            "RABBITMQ_CONFIG_FILES": f"{here}/conf.d",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{here}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/enabled_plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{here}/generated",
            "RABBITMQ_DEFAULT_USER": self._user,
            "RABBITMQ_DEFAULT_PASS": self._password,
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",  # two nodes bound to the same core halve each other
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel inet_dist_use_interface {{127,0,0,1}} {schedulers}",
            "RUNNING_UNDER_SYSTEMD": "true",  # the script then becomes the broker: our child's pid is the broker's
        }

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
            return " / ".join(lines[-5:])[-600:]
        return "no log"


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_MORE_PATH}")
