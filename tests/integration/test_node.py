"""Node for tests has the modules that the lock pins, and the lock names no registry."""

from __future__ import annotations

from pathlib import Path

from common.codec import loads
from tests.fixtures.node import PINNED, Node


async def test_node_loads_what_the_lock_pins(node: Node, tmp_path: Path) -> None:
    script = tmp_path / "versions.js"
    script.write_text(
        'const { connect } = require("amqplib");\n'
        'const { Parser } = require("@asyncapi/parser");\n'
        "console.log(typeof connect, typeof new Parser().validate);\n"
    )

    code, printed = await node.run(script)

    assert (code, printed) == (0, ["function function"])


async def test_a_script_that_fails_says_so(node: Node) -> None:
    code, printed = await node.run("-e", "throw new Error('on purpose')")

    assert code == 1
    assert any("on purpose" in line for line in printed)


def test_the_lock_takes_any_registry() -> None:
    packages = loads((PINNED / "package-lock.json").read_bytes())["packages"]

    installed = {path: package for path, package in packages.items() if path}
    assert installed
    assert all("integrity" in package and "resolved" not in package for package in installed.values())
