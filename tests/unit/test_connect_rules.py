"""The link to Syncaroo, what it may send an admin back with, and what the admin reads."""

from datetime import timedelta

import pytest

from ingress.connect.rules import Attempt, CodeCame, Declined, authorize_url, declined_view, read_callback, view_of
from ingress.parameters import BadInput


def test_the_link_is_the_guides() -> None:
    url = authorize_url("https://app.syncaroo.com", "xxyyzz", "https://yourapp.com/confirm", "s&t")
    assert url == (
        "https://app.syncaroo.com/api/authorize?clientId=xxyyzz&redirectUri=https%3A%2F%2Fyourapp.com%2Fconfirm"
        "&responseType=code&scope=&state=s%26t"
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"code": "c", "state": "s"}, CodeCame("s", "c")),
        ({"code": "c" * 2048, "state": "s"}, CodeCame("s", "c" * 2048)),
        ({"code": "c", "state": "s", "more": "x"}, CodeCame("s", "c")),
        ({"error": "access_denied", "state": "s"}, Declined("s", "access_denied")),
        ({"error": "access_denied"}, Declined("", "access_denied")),
        ({"error": "e", "code": "c", "state": "s"}, Declined("s", "e")),
        ({"error": "e", "error_description": "why"}, Declined("", "e: why")),
        ({"error": "e" * 999, "errorDescription": "d" * 999}, Declined("", f"{'e' * 200}: {'d' * 200}")),
    ],
)
def test_what_comes_back(values: dict[str, str], expected: CodeCame | Declined) -> None:
    assert read_callback(values) == expected


@pytest.mark.parametrize(
    "values",
    [{}, {"code": "c"}, {"state": "s"}, {"code": "", "state": "s"}, {"code": "c", "state": ""},
     {"code": "c" * 2049, "state": "s"}],
)  # fmt: skip
def test_what_must_not_come_back(values: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="/connect"):
        read_callback(values)


@pytest.mark.parametrize(
    ("outcome", "age", "title", "follows", "again"),
    [
        ("pending", 0, "Connecting", True, False),
        ("pending", 60, "Connecting", True, False),
        ("pending", 901, "Not connected", False, True),
        ("active", 5, "Connected", False, False),
        ("active", 9999, "Connected", False, False),
        ("refused", 5, "Not connected", False, True),
        ("failed", 600, "Not connected", False, True),
    ],
)
def test_what_an_admin_reads(outcome: str, age: float, title: str, follows: bool, again: bool) -> None:
    view = view_of(Attempt(outcome, "HTTP 503", timedelta(seconds=age)))
    assert view.title.startswith(title)
    assert (view.follow is not None, view.again) == (follows, again)


@pytest.mark.parametrize(("age", "title", "again"), [(9, "Connecting", False), (11, "Not connected", True)])
def test_a_code_that_got_lost_is_not_waited_for(age: float, title: str, again: bool) -> None:
    """T-CB-DOWN: shown when it cannot be handed on any more."""
    view = view_of(Attempt("pending", None, timedelta(seconds=age), handed_on=False))
    assert view.title.startswith(title)
    assert view.again is again


def test_slow_attempts_say_what_to_look_at() -> None:
    assert "token worker" in view_of(Attempt("pending", None, timedelta(seconds=21))).text
    assert declined_view("access_denied").detail == "access_denied"
