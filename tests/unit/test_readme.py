"""README and docs tell the truth about topology and settings."""

from __future__ import annotations

import re
from pathlib import Path

from common import settings
from common.broker.topology import diagram
from common.settings import RetrySettings, Section

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def test_the_topology_in_the_readme_is_the_one_in_code() -> None:
    shown = re.search(r"<!-- topology -->\n```\n(.*?)\n?```\n<!-- /topology -->", README.read_text(), re.DOTALL)
    assert shown is not None
    default_delays = RetrySettings.model_fields["retry_delays"].default
    assert shown[1] == diagram(default_delays)


def test_every_setting_is_documented_and_nothing_else() -> None:
    sections = [one for one in vars(settings).values() if isinstance(one, type) and issubclass(one, Section)]
    known = {name.upper() for section in sections for name in section.model_fields}
    table_rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)
    assert {name for row in table_rows for name in re.findall(r"`([A-Z_]+)`", row)} == known
