"""What a private engine leaves in this machine's network, and how that is taken back: bridge, chains, forwarding."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ops.broker.broker import Say
from tests.compose.command import Failed, run

BRIDGE = "docker0"

_CHAIN = "DOCKER"  # Docker's own chains begin so
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_TOOLS = ("iptables", "ip6tables")
_LIMIT = 20.0


@dataclass
class Table:
    """One table of `iptables-save`: chains with their policy (`-` for those that somebody made), rules in order."""

    policies: dict[str, str] = field(default_factory=dict)
    rules: list[str] = field(default_factory=list)


def tables(saved: str) -> dict[str, Table]:
    """What `iptables-save` printed, by the table's name."""
    found: dict[str, Table] = {}
    for line in saved.splitlines():
        match line[:1]:
            case "*":
                now = found.setdefault(line[1:].strip(), Table())
            case ":":
                chain, policy = line[1:].split()[:2]
                now.policies[chain] = policy
            case "-":
                now.rules.append(line)
    return found


def undone(before: str, after: str) -> list[str]:
    """The arguments of iptables that take back what an engine has added; what is not Docker's is left as it is."""
    was = tables(before)
    commands = []
    for name, now in tables(after).items():
        old = was.get(name, Table())
        made = [chain for chain in now.policies if chain.startswith(_CHAIN) and chain not in old.policies]
        calls = [rule for rule in now.rules if _is_dockers(rule) and rule not in old.rules]
        commands += [f"-t {name} -D{rule[2:]}" for rule in calls if rule.split()[1] not in made]
        commands += [f"-t {name} -F {chain}" for chain in made]
        commands += [f"-t {name} -X {chain}" for chain in made]
        if now.policies.get("FORWARD") == "DROP" and old.policies.get("FORWARD", "ACCEPT") == "ACCEPT":
            commands.append(f"-t {name} -P FORWARD ACCEPT")
    return commands


def _is_dockers(rule: str) -> bool:
    return BRIDGE in rule or f" {_CHAIN}" in rule


@contextlib.contextmanager
def put_back(say: Say) -> Iterator[None]:
    """After the block the network is as it was before; what cannot be taken back is told."""
    before = {tool: _saved(tool) for tool in _TOOLS}
    forwarded, bridged = _FORWARD.read_text(), _has_bridge()
    try:
        yield
    finally:
        failed = []
        for tool in _TOOLS:
            failed += [
                f"{tool} {one}" for one in undone(before[tool], _saved(tool)) if not _done(tool, *shlex.split(one))
            ]
        if _has_bridge() and not bridged and not _done("ip", "link", "delete", BRIDGE):
            failed.append(f"ip link delete {BRIDGE}")
        if _FORWARD.read_text() != forwarded:
            _FORWARD.write_text(forwarded)
        for command in failed:
            say(f"The private engine has left something in the network; by hand: {command}")


def _saved(tool: str) -> str:
    """Empty where the tool is not there, or the kernel has no such tables."""
    try:
        return run([f"{tool}-save"], {}, _LIMIT) if shutil.which(f"{tool}-save") else ""
    except Failed:
        return ""


def _done(*command: str) -> bool:
    try:
        run(list(command), {}, _LIMIT)
    except Failed:
        return False
    return True


def _has_bridge() -> bool:
    return BRIDGE in {name for _, name in socket.if_nameindex()}
