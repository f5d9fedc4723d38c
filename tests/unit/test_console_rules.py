"""What the console says of bodies that others wrote."""

from __future__ import annotations

import pytest

from ingress.console.rules import LONGEST_NAME, title_of
from schemas.messages import Json


@pytest.mark.parametrize(
    ("body", "title"),
    [
        ({"ID": "7843", "Name": "Ada's room"}, "Ada's room"),
        ({"name": "Loft"}, "Loft"),
        ({"period": "2026-01"}, "2026-01"),
        ({"name": "a\u202eb\u2028c\u061cd"}, "a\\u202eb\\u2028c\\u061cd"),
        ({"name": "x" * 1000}, "x" * LONGEST_NAME),
        ({"ID": "7843"}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_an_item_is_called_what_it_calls_itself(body: Json, title: str) -> None:
    assert title_of(body) == title
