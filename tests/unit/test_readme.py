"""README tells the truth about the topology."""

from __future__ import annotations

import re
from pathlib import Path

from common.broker.topology import diagram
from common.settings import RetrySettings

README = Path(__file__).parents[2] / "README.md"


def test_the_topology_in_the_readme_is_the_one_in_code() -> None:
    shown = re.search(r"<!-- topology -->\n```\n(.*?)\n?```\n<!-- /topology -->", README.read_text(), re.DOTALL)
    assert shown is not None
    default_delays = RetrySettings.model_fields["retry_delays"].default
    assert shown[1] == diagram(default_delays)
