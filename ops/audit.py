"""Known vulnerabilities of what the locks name: `python ops/audit.py LOCK…`, where pip-audit is (`make audit`).

PyPI is asked by name and version, and nothing is installed. What it could not be asked about is said, never passed
over.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

UNKNOWN = 77
"""The exit code when nobody could be asked: neither good nor bad."""
COMMAND = (
    "-m",
    "pip_audit",
    "--vulnerability-service",
    "pypi",
    "--disable-pip",
    "--require-hashes",
    "--format",
    "json",
)


def verdict(report: Any) -> tuple[int, list[str]]:
    """The exit code and what to tell, of pip-audit's report in JSON; None: it has none."""
    if report is None:
        return UNKNOWN, ["PyPI's list of known vulnerabilities cannot be reached: nothing was checked."]
    all_of_them = report["dependencies"]
    asked = [one for one in all_of_them if "skip_reason" not in one]
    if not asked:
        return UNKNOWN, ["The package index here has no list of known vulnerabilities: nothing was checked."]
    found = [_told(one, each) for one in asked for each in one["vulns"]]
    missed = [f"{one['name']}: not checked, {one['skip_reason']}" for one in all_of_them if "skip_reason" in one]
    summary = f"{len(asked)} of {len(all_of_them)} packages checked, {len(found)} known vulnerabilities."
    return int(bool(found or missed)), [*found, *missed, summary]


def _told(package: Any, vulnerability: Any) -> str:
    mended = ", ".join(vulnerability["fix_versions"]) or "nothing yet"
    return f"{package['name']} {package['version']}: {vulnerability['id']}, mended in {mended}"


def main(locks: Sequence[str]) -> int:
    """Tells it, and returns the worst of what was found."""
    codes = set[int]()
    for lock in locks:
        ran = subprocess.run(
            [sys.executable, *COMMAND, "--requirement", lock], capture_output=True, text=True, check=False
        )
        code, lines = verdict(json.loads(ran.stdout) if ran.stdout.startswith("{") else None)
        print("\n".join(f"{lock}: {line}" for line in lines))
        if code == UNKNOWN and ran.returncode:
            print(ran.stderr.strip()[-500:], file=sys.stderr)
        codes.add(code)
    return 1 if 1 in codes else max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
