"""The two ways to make virtual hosts: the management API and rabbitmqctl."""

import base64
import json
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from ops.broker.broker import VhostRefused

_EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}


class Run(Protocol):
    """Runs rabbitmqctl (of whichever node) with these arguments; raises OSError when there is none."""

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]: ...


class ByManagement:
    """Virtual hosts over HTTP: about 20 ms each."""

    def __init__(self, base: str, user: str, password: str, timeout: float = 10.0) -> None:
        self.base = base.rstrip("/")
        self._user = user
        self._basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._timeout = timeout
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # never through a proxy

    def create(self, names: Sequence[str]) -> None:
        for name in names:
            self.call("PUT", f"/api/vhosts/{quote(name, safe='')}")
            self.call("PUT", f"/api/permissions/{quote(name, safe='')}/{quote(self._user, safe='')}", _EVERYTHING)

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            self.call("DELETE", f"/api/vhosts/{quote(name, safe='')}")

    def call(self, method: str, path: str, body: object = None) -> object:
        """One request to the management API → its JSON, None when empty or when what was to go is not there."""
        request = urllib.request.Request(  # noqa: S310  # settings give the address, nobody outside
            self.base + path,
            method=method,
            data=None if body is None and method != "PUT" else json.dumps(body or {}).encode(),
            headers={"Content-Type": "application/json", "Authorization": self._basic},
        )
        try:
            with self._open(request, timeout=self._timeout) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            error.close()
            if method == "DELETE" and error.code == 404:
                return None
            raise VhostRefused(f"the management API at {self.base} answers {error.code}") from error
        except (OSError, ValueError) as error:
            raise VhostRefused(f"no management API at {self.base}") from error
        try:
            return json.loads(content) if content else None
        except ValueError as error:
            raise VhostRefused(f"what answers at {self.base} is no management API") from error


class ByCtl:
    """Virtual hosts by rabbitmqctl: under a second, whether one or ten."""

    def __init__(self, run: Run, user: str) -> None:
        self._run = run
        self._user = user

    def create(self, names: Sequence[str]) -> None:
        definitions = {
            "vhosts": [{"name": name} for name in names],
            "permissions": [{"user": self._user, "vhost": name, **_EVERYTHING} for name in names],
        }
        with tempfile.NamedTemporaryFile("w", dir="/tmp", suffix=".json") as file:  # 4.0 reads no stdin
            json.dump(definitions, file)
            file.flush()
            Path(file.name).chmod(0o644)  # the machine's rabbitmqctl is another user's; nothing in it is secret
            self._call("-q", "import_definitions", file.name)

    def delete(self, names: Sequence[str]) -> None:
        if len(names) > 1:
            listed = ",".join(f'<<"{name}">>' for name in names)  # ours: letters, digits, dashes
            remove = f'[catch rabbit_vhost:delete(V, <<"{self._user}">>) || V <- [{listed}]].'
            try:
                self._call("-q", "eval", remove)
            except VhostRefused:
                pass  # a broker whose inner function is called otherwise: one by one, below
            else:
                return
        for name in names:
            try:
                self._call("-q", "delete_vhost", name)
            except VhostRefused as error:
                if "does not exist" not in str(error):
                    raise

    def _call(self, *arguments: str) -> None:
        try:
            done = self._run(*arguments)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise VhostRefused(f"rabbitmqctl cannot be run ({type(error).__name__})") from error
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())
            raise VhostRefused(f"rabbitmqctl: {said[:200] or f'exit {done.returncode}'}")
