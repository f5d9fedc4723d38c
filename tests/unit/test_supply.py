"""What is installed: locked with hashes, from whichever registry, and not older than what is known to be safe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from ops.audit import UNKNOWN, verdict

ROOT = Path(__file__).parents[2]
LOCKS = ("ops/requirements.lock", "ops/requirements-dev.lock", "ops/audit.lock", "benchmarks/peers.lock")
SAFE = {
    "aiohttp": ("3.14.5", "request smuggling, bombs and endless multipart bodies"),
    "aio-pika": ("10.2.1", "connections that did not come back"),
    "authlib": ("1.6.5", "CVE-2025-59420, -61920, -62706: critical headers ignored, huge tokens"),
    "certifi": ("2024.7.4", "CVE-2024-39689: a root that is trusted no more"),
    "idna": ("3.7", "CVE-2024-3651: a name that takes for ever"),
    "jinja2": ("3.1.6", "CVE-2025-27516: out of its sandbox"),
    "pip": ("25.3", "CVE-2025-8869: links out of an archive"),
    "protobuf": ("6.31.1", "CVE-2025-4565: nesting without end"),
    "requests": ("2.32.4", "CVE-2024-47081: a password for another host"),
    "setuptools": ("78.1.1", "CVE-2025-47273: a path out of its directory"),
    "urllib3": ("2.6.0", "CVE-2025-66418, -66471: decompression without end"),
}
"""The first version that is safe, and from what."""
_ENTRY = re.compile(r"([a-z0-9][a-z0-9.-]*)(?:\[[a-z,-]+\])?==([^ ;\\]+)(?: ; [^\\]+)?")


def entries(text: str) -> dict[str, tuple[list[str], list[str]]]:
    """By name: versions and hashes.

    AssertionError: a line is neither, or a package has no hash.
    """
    found: dict[str, tuple[list[str], list[str]]] = {}
    lines = text.replace("\\\n", " ").splitlines()
    for line in lines:
        words = line.split(" --hash=")
        entry = _ENTRY.fullmatch(words[0].strip())
        assert entry, line
        hashes = [word.strip() for word in words[1:]]
        assert hashes, line
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), line
        versions, known = found.setdefault(entry[1], ([], []))
        versions.append(entry[2])
        known.extend(hashes)
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_is_names_versions_and_hashes_and_nothing_else(lock: str) -> None:
    """No address: whoever installs has a registry of their own."""
    assert entries((ROOT / lock).read_text())


@pytest.mark.parametrize("odd", ["a==1", "a==1 --hash=md5:00", "--index-url elsewhere", "a @ file:///x/a.whl"])
def test_what_does_not_belong_in_a_lock_is_found(odd: str) -> None:
    with pytest.raises(AssertionError):
        entries(odd)


@pytest.mark.parametrize("lock", LOCKS)
def test_nothing_is_older_than_what_is_known_to_be_safe(lock: str) -> None:
    old = [
        f"{name} {version}: {reason}"
        for name, (versions, _) in entries((ROOT / lock).read_text()).items()
        if name in SAFE
        for least, reason in [SAFE[name]]
        for version in versions
        if Version(version) < Version(least)
    ]
    assert old == []


def test_what_is_known_to_be_unsafe_is_used_somewhere() -> None:
    """No line of the list is of something that is gone."""
    assert set(SAFE) <= {name for lock in LOCKS for name in entries((ROOT / lock).read_text())}


def test_each_lock_has_its_audit() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("ops/audit.py ")[2].partition("\n")[0]
    assert {word.replace("$(LOCK)", "ops/requirements-dev.lock") for word in recipe.split()} == set(LOCKS)


# --- make audit ----------------------------------------------------------------------------------------------------


def checked(name: str, *vulnerabilities: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": list(vulnerabilities)}


HOLE = {"id": "PYSEC-2026-1", "fix_versions": ["1.1"], "aliases": [], "description": "a hole"}
SKIPPED = {"name": "b", "skip_reason": "not found on PyPI"}


def test_nobody_to_ask_is_neither_good_nor_bad() -> None:
    for report in (None, {"dependencies": [SKIPPED, SKIPPED]}):
        code, (line,) = verdict(report)
        assert (code, line.endswith("nothing was checked.")) == (UNKNOWN, True)


def test_what_was_not_checked_is_not_passed_over() -> None:
    assert verdict({"dependencies": [checked("a")]}) == (0, ["1 of 1 packages checked, 0 known vulnerabilities."])
    assert verdict({"dependencies": [checked("a"), SKIPPED]}) == (
        1,
        ["b: not checked, not found on PyPI", "1 of 2 packages checked, 0 known vulnerabilities."],
    )


def test_a_vulnerability_is_told_with_what_mends_it() -> None:
    code, lines = verdict({"dependencies": [checked("a", HOLE, HOLE | {"fix_versions": []})]})
    assert code == 1
    assert lines[:2] == ["a 1.0: PYSEC-2026-1, mended in 1.1", "a 1.0: PYSEC-2026-1, mended in nothing yet"]
