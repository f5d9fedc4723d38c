"""common.access_tokens and signed_text: what we issue is recognised, with any key, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.access_tokens import PREFIX, AccessToken, AccessTokens, Expired
from common.signed_text import SignedText
from tests.keys import NEW, OLD

TOKENS = AccessTokens([OLD], 60)
TOKEN = TOKENS.issue(99, "f", 1000)


def test_it_is_valid_until_it_expires() -> None:
    said = AccessToken(99, "f", 1060)
    assert TOKEN.startswith(PREFIX)
    assert TOKENS.read(TOKEN, 1059) == said
    assert TOKENS.read(TOKEN, 1060) == Expired(said)


def test_keys_are_rotated_without_refusing_anyone() -> None:
    appended, moved = AccessTokens([OLD, NEW], 60), AccessTokens([NEW, OLD], 60)
    for issuer, reader in ((TOKENS, appended), (appended, moved), (moved, appended), (TOKENS, moved)):
        assert isinstance(reader.read(issuer.issue(1, "f", 0), 0), AccessToken)
    assert AccessTokens([NEW], 60).read(TOKEN, 1000) is None


@pytest.mark.parametrize(
    "wrong",
    [
        "", "x", PREFIX, f"{PREFIX}.", f"{PREFIX}...", TOKEN[:-1], TOKEN + "=", TOKEN + "A", TOKEN.replace("99", "98"),
        TOKEN.upper(), f" {TOKEN}", TOKEN.removeprefix(PREFIX), TOKEN * 20, TOKEN[:-2] + "é" + TOKEN[-1],
        TOKEN + "\ud800",
    ],
)  # fmt: skip
def test_everything_else_is_nothing(wrong: str) -> None:
    assert TOKENS.read(wrong, 1000) is None


@given(st.text(max_size=80))
def test_no_text_is_an_error(text: str) -> None:
    assert TOKENS.read(text, 0) is None
    assert TOKENS.read(PREFIX + text, 0) is None


def test_another_spelling_of_the_same_signature_is_refused() -> None:
    last = TOKEN[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    neighbour = alphabet[alphabet.index(last) ^ 1]  # differs only in bits that no byte holds
    assert TOKENS.read(TOKEN[:-1] + neighbour, 1000) is None


def test_purposes_do_not_mix() -> None:
    other = SignedText([OLD], "refresh-token", PREFIX)
    assert TOKENS.read(other.sign("99", "f", "1060"), 1000) is None
    assert OLD not in repr(other)
